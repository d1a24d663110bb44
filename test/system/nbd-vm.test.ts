/** A virtual machine boots from an export during the copy. The server is killed meanwhile. */

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { BOOT_IMAGE, Guest } from '../support/guest.ts';
import { startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';
import { haveTool } from '../support/tools.ts';

const MiB = 2 ** 20;
const IMAGE_BYTES = 64 * MiB;

const here = haveTool('qemu-system-x86_64') && existsSync(BOOT_IMAGE);

describe.skipIf(!here)(
  here ? 'a virtual machine' : 'a virtual machine (missing: qemu-system-x86_64 or a GRUB image)',
  () => {
    test('boots before the copy is complete, and reads correct bytes across a kill of the server', async () => {
      const directory = temporaryDirectory();
      const bytes = seededRandom(8).fill(new Uint8Array(IMAGE_BYTES));
      bytes.set(readFileSync(BOOT_IMAGE));
      const image = join(directory, 'image');
      writeFileSync(image, bytes);
      const sha256 = (offset: number, length: number): string =>
        createHash('sha256')
          .update(bytes.subarray(offset, offset + length))
          .digest('hex');
      const source = await serveFile(image, { bytesPerSecond: MiB, latencyMs: 10 });
      onTestFinished(() => source.close());
      const socket = join(directory, 's');
      const target = join(directory, 'disk');
      const command = [source.url, target, '--socket', socket, '--rate', '512k'];
      const first = await startServe(...command);

      const guest = new Guest(socket);
      await guest.shell();
      const { stdout } = await runCommand(['inspect', target, '--json']);
      const { syncedBlocks, totalBlocks } = JSON.parse(stdout) as { syncedBlocks: number; totalBlocks: number };
      expect(syncedBlocks).toBeLessThan(totalBlocks / 2);

      expect(await guest.hash(16 * MiB, MiB)).toBe(sha256(16 * MiB, MiB));

      const digest = guest.hash(32 * MiB, 4 * MiB);
      // Kill the server in the middle of the digest.
      const before = source.requests;
      while (source.requests < before + 5) await sleep(5);
      expect((await first.stop('SIGKILL')).signal).toBe('SIGKILL');
      await sleep(200);
      const second = await startServe(...command);
      expect(await digest).toBe(sha256(32 * MiB, 4 * MiB));
      expect(await guest.hash(16 * MiB, MiB)).toBe(sha256(16 * MiB, MiB));
      const { exitCode, stderr } = await second.stop();
      expect(exitCode, stderr).toBe(0);
    });
  },
);
