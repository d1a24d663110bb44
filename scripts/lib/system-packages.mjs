/** Installs the programs that the tests and the model need. */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { capture, say } from './steps.mjs';

/** Debian packages, and why the tests need each. docs/TESTING.md lists them. */
export const systemPackages = {
  'qemu-utils': 'qemu-img and qemu-io: a foreign NBD client, and a check of targets',
  'qemu-system-x86': 'a virtual machine that boots from an export',
  'grub-rescue-pc': 'a boot loader for that machine and for v86, with a serial line and checksums',
  'libnbd-bin': 'nbdinfo, nbdcopy and nbdfuse: strict NBD clients',
  'python3-libnbd': 'nbdsh: each command of the protocol by itself',
  fio: 'random reads and writes over NBD, with verification',
  openssl: 'certificates for TLS',
  nbdkit: 'a foreign NBD server, for the NBD source',
  'nginx-light': 'a foreign HTTP server, for the HTTP source',
  e2fsprogs: 'mkfs.ext4, e2fsck and debugfs: images with files, and checks of their file systems',
  xfsprogs: 'mkfs.xfs: a volume that loses what was not synced',
  'btrfs-progs': 'mkfs.btrfs: the same with another file system',
  dosfstools: 'mkfs.fat and fsck.fat: volumes for the page to browse and change',
  mtools: 'mcopy, mmd and others: files on those volumes',
  genisoimage: 'CD images for the page to browse, and isoinfo, which reads them too',
  'xz-utils': 'xz, which unpacks images of test/fixtures',
  fdisk: 'sfdisk: partition tables for the page to read',
  chromium: 'the browser of test/browser, which other tests kill',
  seabios: 'the BIOS of the PC that v86 emulates',
  'grub-common': 'grub-mkimage: the boot loader of the small Linux in examples/v86',
  'grub-pc-bin': 'the modules of that boot loader',
  cpio: 'the archive with the drivers of that Linux',
  systemd: 'systemd-notify, systemd-socket-activate and systemd-analyze: a service manager without running one',
  curl: 'a reference for responses of HTTP servers',
  zsh: 'a shell, for its completion script',
  fish: 'another shell',
  mandoc: 'a check of the man page',
  prometheus: 'promtool: a check of metrics and of alert rules',
  spin: 'a model checker, for the models of the log',
  gcc: 'a compiler of what Spin generates',
  'libc6-dev': 'the headers of that compiler',
};

/** The same for `npm run test:long` only. */
export const longSystemPackages = {
  strace: 'system calls that fail or kill their process',
  fuse3: 'fusermount3, with which nbdfuse unmounts its file',
  'firefox-esr': 'a second browser, with another storage implementation',
  'ceph-mon': 'the monitor of a Ceph of one node, whose radosgw is a foreign S3 server',
  'ceph-mgr': 'its manager',
  'ceph-osd': 'its storage',
  radosgw: 'its S3 server',
  'ceph-common': 'its tools',
  'qemu-block-extra': "QEMU's driver for Ceph's block devices",
};

/** Whether this machine lets the tests install what they need. */
export function canInstallSystemPackages() {
  return process.getuid?.() === 0 && existsSync('/etc/debian_version') && existsSync('/usr/bin/apt-get');
}

/**
 * @param {readonly string[]} wanted
 * @returns {Promise<string[]>}
 */
async function missingPackages(wanted) {
  // dpkg-query exits with 1 if it does not know one of the names. It still prints the others.
  const known = await capture('sh', [
    '-c',
    `dpkg-query -W -f '\${Package} \${db:Status-Status}\\n' ${wanted.join(' ')} 2>/dev/null || true`,
  ]);
  const installed = new Set(known.split('\n').map((line) => (line.endsWith(' installed') ? line.split(' ')[0] : '')));
  return wanted.filter((name) => !installed.has(name));
}

/** @param {readonly string[]} args */
function apt(...args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return capture('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...args], { env });
}

/**
 * Runs `body` while installed packages may not start services, as nginx would.
 * @param {() => Promise<void>} body
 */
async function withoutServices(body) {
  const policy = '/usr/sbin/policy-rc.d';
  if (existsSync(policy)) return body();
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    await body();
  } finally {
    rmSync(policy, { force: true });
  }
}

/**
 * Installs the missing packages. Where that is not possible, prints so, and the tests that need them are skipped.
 * @param {readonly string[]} [wanted]
 */
export async function ensureSystemPackages(wanted = Object.keys(systemPackages)) {
  if (!canInstallSystemPackages()) {
    say(
      `Packages cannot be installed here (root on Debian can): tests without their programs are skipped. ` +
        `The packages are ${wanted.join(', ')}.`,
    );
    return;
  }
  const missing = await missingPackages(wanted);
  if (missing.length === 0) return;
  say(`installing system packages (${missing.join(', ')}) …`);
  const install = () => apt('install', '-y', '--no-install-recommends', ...missing);
  await withoutServices(async () => {
    const hasLists =
      existsSync('/var/lib/apt/lists') &&
      readdirSync('/var/lib/apt/lists').some((name) => /_Packages(\.\w+)?$/.test(name));
    if (!hasLists) await apt('update');
    try {
      await install();
    } catch (error) {
      if (!hasLists) throw error;
      // Old lists may name versions that the servers no longer have.
      await apt('update');
      await install();
    }
  });
}
