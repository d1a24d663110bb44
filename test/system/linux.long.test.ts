/**
 * The example that boots a small Linux in v86, as users run it: the example's script makes the image, and a static
 * server delivers the page.
 */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/random.ts';
import { Chromium } from '../support/chromium.ts';
import { type Site, startSite } from '../support/site.ts';
import { describeWith } from '../support/tools.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const NEEDED = ['chromium', 'apt-get', 'dpkg', 'cpio', 'mke2fs', 'sfdisk', 'grub-mkimage'];
const NEEDED_FILES = ['/usr/lib/grub/i386-pc/boot.img', '/usr/share/seabios/bios.bin'];
/** Only a safety net against a hang; it must suffice for the slowest machine. */
const BOOT = { timeout: 600_000, interval: 200 };

const debian = existsSync('/etc/debian_version') ? readFileSync('/etc/debian_version', 'utf8') : '';
const hasKernel = debian.startsWith('12.');

describe.skipIf(!hasKernel)(
  hasKernel ? 'Debian 12' : 'Debian 12, the last with a kernel for i386 (not this system)',
  () => {
    describeWith([...NEEDED, ...NEEDED_FILES], 'a small Linux in v86', () => {
      const folder = mkdtempSync(join(tmpdir(), 'cod-linux-'));
      const example = join(folder, 'example');
      const random = seededRandom(1).fill(new Uint8Array(2 ** 21 + 1));
      const md5 = createHash('md5').update(random).digest('hex');
      let chromium: Chromium;
      let site: Site;

      beforeAll(async () => {
        cpSync(join(root, 'examples', 'v86'), example, { recursive: true });
        cpSync(join(root, 'dist'), join(example, 'node_modules', 'copyondemand', 'dist'), { recursive: true });
        cpSync(join(root, 'node_modules', 'v86', 'build'), join(example, 'node_modules', 'v86', 'build'), {
          recursive: true,
        });
        mkdirSync(join(folder, 'files'));
        writeFileSync(join(folder, 'files', 'random.bin'), random);
        // In the project's folder, so that later runs reuse the downloads.
        execFileSync(join(example, 'make-image.sh'), [example, join(folder, 'files')], { cwd: root, stdio: 'pipe' });
        site = await startSite({ folders: { '/': example } });
        chromium = await Chromium.start(join(folder, 'profile'));
      }, 600_000);

      afterAll(async () => {
        await chromium?.close();
        await site?.close();
        rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
      });

      test('boots from a disk that is not copied yet, and keeps a written file across a reload', {
        timeout: 1_800_000,
      }, async () => {
        const page = await chromium.browser.contexts()[0]!.newPage();
        const screen = async (): Promise<string> => {
          const lines = await page.locator('#screen > div > div').allTextContents();
          return lines
            .map((line) => line.trimEnd())
            .join('\n')
            .trimEnd();
        };
        const shell = (): Promise<void> => expect.poll(screen, BOOT).toMatch(/\n\/ #$/);
        /**
         * Runs a command in the shell and returns its output. The command must be short and typed without the shift
         * key.
         */
        const enter = async (command: string): Promise<string> => {
          await page.keyboard.type(`${command}\n`);
          const answer = new RegExp(`/ # ${command}\n((?:.*\n)*)/ #$`);
          await expect.poll(screen, BOOT).toMatch(answer);
          return answer.exec(await screen())![1]!.trim();
        };

        // At this rate, the copy contains little more than the PC's reads.
        await page.goto(`${site.url}/?rate=1`);
        await shell();
        await page.getByText(/^\d+ of 64 MiB copied/).waitFor();
        const mebibytes = Number.parseInt((await page.textContent('output'))!, 10);
        expect(mebibytes).toBeGreaterThan(0);
        expect(mebibytes).toBeLessThan(64);
        expect(await enter('md5sum root/random.bin')).toBe(`${md5}  root/random.bin`);
        expect(await enter('cp root/random.bin root/written.bin')).toBe('');
        expect(await enter('sync')).toBe('');

        await page.reload();
        await page.getByText(/^\d+ of 64 MiB copied/).waitFor();
        await shell();
        expect(await enter('md5sum root/written.bin')).toBe(`${md5}  root/written.bin`);
      });
    });
  },
);
