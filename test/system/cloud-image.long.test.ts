/** A Linux built from Debian's packages boots from a compressed qcow2 image on a web server, while it is copied. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { seededRandom } from '../../src/testing/random.ts';
import { runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { startProgram, startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';
import { describeWith } from '../support/tools.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const NEEDED = ['qemu-system-x86_64', 'qemu-img', 'apt-get', 'dpkg', 'cpio', 'mke2fs', 'sfdisk', 'grub-mkimage'];
const NEEDED_FILES = ['/usr/lib/grub/i386-pc/boot.img', '/usr/share/seabios/bios.bin'];
/** In the disk, and not needed to boot. */
const UNUSED_BYTES = 32 * 2 ** 20;

const debian = existsSync('/etc/debian_version') ? readFileSync('/etc/debian_version', 'utf8') : '';
const hasKernel = debian.startsWith('12.');

describe.skipIf(!hasKernel)(
  hasKernel ? 'Debian 12' : 'Debian 12, whose kernel for i386 is used here (not this system)',
  () => {
    describeWith([...NEEDED, ...NEEDED_FILES], 'a cloud image', () => {
      test.each(['zlib', 'zstd'])('compressed with %s boots from `serve`', async (compression) => {
        const folder = temporaryDirectory();
        const files = join(folder, 'files');
        mkdirSync(files);
        writeFileSync(join(files, 'unused'), seededRandom(1).fill(new Uint8Array(UNUSED_BYTES)));
        // In the project's folder, so that later runs reuse the downloads.
        const script = join(root, 'examples', 'v86', 'make-image.sh');
        execFileSync(script, [folder, files, 'console=ttyS0 loglevel=7'], { cwd: root, stdio: 'pipe' });
        const image = join(folder, 'cloudimg-i386.img');
        const packing = ['-c', '-o', `compression_type=${compression}`];
        execFileSync('qemu-img', [
          ...['convert', '-f', 'raw', '-O', 'qcow2', ...packing],
          ...[join(folder, 'linux.img'), image],
        ]);
        const source = await serveFile(image, { latencyMs: 20 });
        onTestFinished(() => source.close());
        const socket = join(folder, 's');
        const target = join(folder, 'disk.raw');
        // At this rate, the copy has little more than the guest's reads.
        await startServe(source.url, target, '--socket', socket, '--rate', '64k');

        const { child, outcome } = startProgram(
          'qemu-system-x86_64',
          ...['-machine', 'accel=tcg', '-m', '256', '-nodefaults', '-display', 'none', '-no-reboot'],
          ...['-serial', 'stdio', '-drive', `file=nbd+unix:///?socket=${socket},format=raw,if=ide`],
        );
        onTestFinished(async () => {
          child.kill('SIGKILL');
          await outcome;
        });
        const lines = await new Promise<string>((resolve, reject) => {
          let text = '';
          child.stdout!.on('data', (data: string) => {
            text += data;
            if (/EXT4-fs \(sda1\): mounted filesystem/.test(text)) resolve(text);
          });
          void outcome.then(({ stderr }) => reject(new Error(`QEMU ended: ${stderr}\n${text}`)));
        });
        expect(lines.split('\n')[0]).toMatch(/Linux version \d/);
        const { stdout } = await runCommand(['inspect', target, '--json']);
        const { size, syncedBlocks, totalBlocks } = JSON.parse(stdout) as Record<string, number>;
        expect(size).toBe(64 * 2 ** 20);
        expect(syncedBlocks).toBeLessThan(totalBlocks! - UNUSED_BYTES / 2 / 4096);
      });
    });
  },
);
