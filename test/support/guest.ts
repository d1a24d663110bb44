/** A virtual machine that boots GRUB from an export. */

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { startProgram } from './programs.ts';
import { haveTool } from './tools.ts';

const SECTOR = 512;
/** GRUB's rescue image, which also boots as a disk. */
const BOOT_IMAGE = '/usr/lib/grub-rescue/grub-rescue-cdrom.iso';
const IMAGE_BYTES = 2 ** 26;

/** What a guest needs that is not here, beside `tools`. */
export function missingForGuests(...tools: string[]): string[] {
  const missing = ['qemu-system-x86_64', ...tools].filter((tool) => !haveTool(tool));
  return existsSync(BOOT_IMAGE) ? missing : [...missing, 'a GRUB image'];
}

/** Writes an image of 64 MiB that boots GRUB, and random bytes after that. */
export function makeGuestImage(
  directory: string,
  seed: number,
): { readonly path: string; readonly sha256: (offset: number, length: number) => string } {
  const bytes = seededRandom(seed).fill(new Uint8Array(IMAGE_BYTES));
  bytes.set(readFileSync(BOOT_IMAGE));
  const path = join(directory, 'image');
  writeFileSync(path, bytes);
  const sha256 = (offset: number, length: number): string =>
    createHash('sha256')
      .update(bytes.subarray(offset, offset + length))
      .digest('hex');
  return { path, sha256 };
}

/** A guest with its serial line. */
export class Guest {
  #screen = '';
  readonly #qemu: ReturnType<typeof startProgram>;

  /** @param device where the disk is: by default on IDE, whose requests time out */
  constructor(socket: string, device = 'ide-hd') {
    const server = `driver=nbd,node-name=nbd,server.type=unix,server.path=${socket},reconnect-delay=120`;
    this.#qemu = startProgram(
      'qemu-system-x86_64',
      ...['-nodefaults', '-display', 'none', '-machine', 'graphics=off', '-m', '128', '-no-reboot', '-serial', 'stdio'],
      ...['-blockdev', server, '-blockdev', 'driver=raw,node-name=disk,file=nbd', '-device', `${device},drive=disk`],
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

  /** Waits for GRUB's menu and opens its shell. */
  async shell(): Promise<void> {
    await this.sees(/GNU GRUB.*executed automatically/);
    this.press('c');
    await this.sees(/grub>/);
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
