/** A virtual machine boots from an export during the copy. The server is killed meanwhile. */

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { startProgram, startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';
import { haveTool } from '../support/tools.ts';

const MiB = 2 ** 20;
const SECTOR = 512;
const IMAGE_BYTES = 64 * MiB;
/** GRUB's rescue image, which also boots as a disk. */
const BOOT_IMAGE = '/usr/lib/grub-rescue/grub-rescue-cdrom.iso';

/** A guest with its serial line. */
class Guest {
  #screen = '';
  readonly #qemu: ReturnType<typeof startProgram>;

  constructor(socket: string) {
    const server = `driver=nbd,node-name=nbd,server.type=unix,server.path=${socket},reconnect-delay=120`;
    this.#qemu = startProgram(
      'qemu-system-x86_64',
      ...['-nodefaults', '-display', 'none', '-machine', 'graphics=off', '-m', '128', '-no-reboot', '-serial', 'stdio'],
      ...['-blockdev', server, '-blockdev', 'driver=raw,node-name=disk,file=nbd', '-device', 'ide-hd,drive=disk'],
    );
    this.#qemu.child.stdout!.on('data', (text: string) => (this.#screen += text));
    onTestFinished(async () => {
      this.#qemu.child.kill('SIGKILL');
      await this.#qemu.outcome;
    });
  }

  /** Waits for a text on the serial line, and discards the output up to its end. */
  async sees(text: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      // Without the sequences that move the cursor; they also break long lines.
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences begin with ESC
      const plain = this.#screen.replace(/\x1b\[[0-9;?]*[a-zA-Z]/g, '').replace(/[\r\n]/g, '');
      const found = text.exec(plain);
      if (found !== null) {
        this.#screen = '';
        return found;
      }
      if (this.#qemu.child.exitCode !== null) throw new Error(`QEMU ended: ${(await this.#qemu.outcome).stderr}`);
      await sleep(20);
    }
  }

  press(key: string): void {
    this.#qemu.child.stdin!.write(key);
  }

  /**
   * Types a line in small parts and waits for the echo of each. The keyboard buffer of a PC has room for 16 keys.
   */
  async type(line: string): Promise<void> {
    for (const [keys] of line.matchAll(/.{1,8}/g)) {
      this.press(keys);
      await this.sees(new RegExp(keys.replace(/[^a-z0-9]/gi, '\\$&')));
    }
    this.press('\r');
  }

  /** Makes GRUB compute the SHA-256 of a range of its disk. The test may await the digest later. */
  async hash(offset: number, length: number): Promise<string> {
    await this.type(`hashsum --hash sha256 (hd0)${offset / SECTOR}+${length / SECTOR}`);
    return this.sees(/([0-9a-f]{64}) *\(hd0\)/).then(([, digest]) => digest!);
  }
}

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
      await guest.sees(/GNU GRUB.*executed automatically/);
      const { stdout } = await runCommand(['inspect', target, '--json']);
      const { syncedBlocks, totalBlocks } = JSON.parse(stdout) as { syncedBlocks: number; totalBlocks: number };
      expect(syncedBlocks).toBeLessThan(totalBlocks / 2);

      guest.press('c');
      await guest.sees(/grub>/);
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
