/**
 * Makes the samples of the page: a small Linux and a PC that has started it, a camera's card, and a floppy with a game.
 *
 * They are made by the standard programs and from Debian's packages, without mounts and without root. A sample whose
 * programs or packages are missing is left out. The samples stay in node_modules/.cache, so a later build links them.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { landscape } from './landscape.mjs';
import { root, say } from './steps.mjs';

const SECTOR = 512;
const LINUX_MIB = 256;
const CARD_MIB = 128;
const PICTURES = 12;
const GRUB = '/usr/lib/grub/i386-pc';

/** @param {string} program @param {readonly string[]} args @param {{ input?: string, cwd?: string }} [options] */
function run(program, args, options = {}) {
  const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin`, MTOOLS_SKIP_CHECK: '1' };
  execFileSync(program, args, { stdio: ['pipe', 'ignore', 'pipe'], env, ...options });
}

const WELCOME = `
 This Linux runs in your browser, from a disk that is still being copied.
 Try:  echo hello > hello.txt     Then reload the page: the file is there.
`;

/** The PC is saved when its screen shows this, before it writes to its disk. */
const STARTED = 'Linux has started.';

const INITTAB = `::sysinit:mount -t sysfs none /sys
::sysinit:echo ${STARTED}
::sysinit:sleep 0.2
::sysinit:mount -o remount,rw,sync /
::sysinit:cat /etc/motd
tty1::respawn:-sh
::shutdown:umount -a -r
`;

/**
 * A disk with a Debian kernel, its drivers and BusyBox. The volume has no journal and is mounted with `sync`, so that
 * the page's files show what the PC wrote.
 * @param {string} work
 */
function makeLinux(work) {
  run(join(root, 'examples', 'v86', 'make-image.sh'), [work, '', '', String(LINUX_MIB)], { cwd: root });
  const image = join(work, 'linux.img');
  const volume = `${image}?offset=${2 ** 20}`;
  for (const [name, text] of Object.entries({ motd: WELCOME, inittab: INITTAB })) writeFileSync(join(work, name), text);
  run('tune2fs', ['-O', '^has_journal', volume]);
  const commands = ['rm /etc/inittab', `write ${work}/inittab /etc/inittab`, `write ${work}/motd /etc/motd`];
  run('debugfs', ['-w', '-f', '-', volume], { input: `${commands.join('\n')}\n` });
  return image;
}

/**
 * A memory card as a camera leaves it: a FAT32 volume in a partition, with pictures.
 * @param {string} work
 */
function makeCard(work) {
  const image = join(work, 'card.img');
  const folder = join(work, 'DCIM', '100HILLS');
  mkdirSync(folder, { recursive: true });
  for (let index = 1; index <= PICTURES; index++)
    writeFileSync(join(folder, `HILL${String(index).padStart(4, '0')}.PNG`), landscape(index));
  writeFileSync(join(work, 'README.TXT'), 'The pictures on this card are drawn by a program.\r\n');
  writeFileSync(image, '');
  truncateSync(image, CARD_MIB * 2 ** 20);
  run('sfdisk', ['-q', '--no-reread', '--no-tell-kernel', image], { input: 'start=4MiB, type=c\n' });
  const offset = (4 * 2 ** 20) / SECTOR;
  // The size in KiB: the volume ends with the image.
  run('mkfs.fat', ['-F', '32', '-n', 'HILLS', `--offset=${offset}`, image, String((CARD_MIB - 4) * 1024)]);
  run('mcopy', ['-s', '-m', '-i', `${image}@@4M`, join(work, 'DCIM'), join(work, 'README.TXT'), '::']);
  return image;
}

/**
 * A floppy from which GRUB starts a game. GRUB is in the reserved sectors of the FAT volume.
 * @param {string} work
 */
function makeFloppy(work) {
  const image = join(work, 'floppy.img');
  run('apt-get', ['-qq', '-o', 'APT::Sandbox::User=root', 'download', 'grub-invaders'], { cwd: work });
  const [archive] = readdirSync(work).filter((name) => name.endsWith('.deb'));
  run('dpkg', ['-x', join(work, archive ?? ''), join(work, 'game')]);
  writeFileSync(join(work, 'grub.cfg'), 'set root=(fd0)\nmultiboot /invaders\nboot\n');
  const modules = ['biosdisk', 'fat', 'multiboot', 'boot'];
  const core = join(work, 'core.img');
  run('grub-mkimage', ['-O', 'i386-pc', '-p', '/', '-c', join(work, 'grub.cfg'), '-o', core, ...modules]);
  const code = readFileSync(core);
  const reserved = 1 + Math.ceil(code.length / SECTOR);
  run('mkfs.fat', ['-C', '-F', '12', '-R', String(reserved), '-n', 'INVADERS', image, '1440']);
  run('mcopy', ['-i', image, join(work, 'game', 'boot', 'invaders.exec'), '::INVADERS']);
  const copyright = join(work, 'game', 'usr', 'share', 'doc', 'grub-invaders', 'copyright');
  run('mcopy', ['-i', image, copyright, '::COPYING.TXT']);
  const floppy = readFileSync(image);
  const boot = readFileSync(join(GRUB, 'boot.img'));
  // The parameters of the FAT volume are at 11 to 90, where GRUB's sector leaves room for them.
  boot.copy(floppy, 0, 0, 3);
  boot.copy(floppy, 90, 90, SECTOR);
  code.copy(floppy, SECTOR);
  writeFileSync(image, floppy);
  return image;
}

/**
 * A PC in which Linux has started from `linux.img`: resumed, it needs no time for its kernel.
 * @param {string} work
 * @param {string} made the folder of the images that were made before
 */
function savePc(work, made) {
  const saved = join(work, 'linux.pc.gz');
  const script = join(root, 'scripts', 'lib', 'saved-pc.mjs');
  run(process.execPath, [script, join(made, 'linux.img'), '/usr/share/seabios', STARTED, saved]);
  return saved;
}

/** What makes each file, after those that it uses. @type {Record<string, (work: string, made: string) => string>} */
const MAKERS = { 'linux.img': makeLinux, 'linux.pc.gz': savePc, 'card.img': makeCard, 'floppy.img': makeFloppy };

/**
 * Adds the samples to a built page.
 * @param {string} outdir the folder of the page
 * @returns {{ url: string, size: number, pc?: string }[]} the samples, for the page's list of images
 */
export function addSamples(outdir) {
  const cache = join(root, 'node_modules', '.cache', 'page-images', version());
  const folder = join(outdir, 'samples');
  mkdirSync(cache, { recursive: true });
  mkdirSync(folder);
  const names = Object.entries(MAKERS).flatMap(([name, make]) => {
    const file = join(cache, name);
    if (!existsSync(file) && !makeFile(name, make, file)) return [];
    link(file, join(folder, name));
    return [name];
  });
  return names.flatMap((name) => {
    if (!name.endsWith('.img')) return [];
    const pc = name.replace(/img$/, 'pc.gz');
    const started = names.includes(pc) ? { pc: `samples/${pc}` } : {};
    return [{ url: `samples/${name}`, size: statSync(join(folder, name)).size, ...started }];
  });
}

/** Names what the makers make: other makers make other images. */
function version() {
  const hash = createHash('sha256');
  // A PC that one version of v86 has saved is for that version.
  const makers = ['page-images.mjs', 'saved-pc.mjs'].map((name) => join('scripts', 'lib', name));
  for (const path of [...makers, 'examples/v86/make-image.sh', 'node_modules/v86/package.json'])
    hash.update(readFileSync(join(root, path)));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Makes a sample; returns whether that was possible.
 * @param {string} name @param {(work: string, made: string) => string} make @param {string} file
 */
function makeFile(name, make, file) {
  const work = mkdtempSync(join(tmpdir(), 'page-image-'));
  say(`making ${name} …`);
  try {
    const made = make(work, dirname(file));
    // Another build may make the same file: the name appears when the file is complete.
    run('cp', ['--sparse=always', made, `${file}.${process.pid}`]);
    renameSync(`${file}.${process.pid}`, file);
    return true;
  } catch (error) {
    say(`the page has no ${name}: ${/** @type {Error} */ (error).message.split('\n', 1)[0]}`);
    return false;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** @param {string} from @param {string} to */
function link(from, to) {
  try {
    linkSync(from, to);
  } catch {
    // On another file system, or on one without links.
    copyFileSync(from, to);
  }
}
