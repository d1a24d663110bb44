/** A PC in v86 with a device as hard disk: it boots, and its writes are durable once v86 completes them. */

import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { Volume } from 'memfs';
import { V86 } from 'v86';
import { expect, test } from 'vitest';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { bytesSource, type Device, openDevice } from '../../src/index.ts';
import { type V86Disk, v86Disk } from '../../src/v86.ts';
import { expectBytes } from '../support/bytes.ts';
import { describeWith } from '../support/tools.ts';

const BIOS = '/usr/share/seabios/bios.bin';
const VGA_BIOS = '/usr/share/seabios/vgabios-stdvga.bin';
const GRUB = '/usr/lib/grub-rescue/grub-rescue-floppy.img';

/** Starts a PC from `disk`; resolves when its screen has shown `text`. */
async function bootUntil(disk: V86Disk, text: string): Promise<void> {
  const buffer = async (path: string): Promise<{ buffer: ArrayBuffer }> => ({
    buffer: new Uint8Array(await readFile(path)).buffer,
  });
  const emulator = new V86({
    wasm_path: createRequire(import.meta.url).resolve('v86/build/v86.wasm'),
    bios: await buffer(BIOS),
    vga_bios: await buffer(VGA_BIOS),
    hda: disk as never,
    memory_size: 32 * 2 ** 20,
    autostart: true,
    disable_speaker: true,
  });
  const screen = Array.from({ length: 25 }, () => Array<string>(80).fill(' '));
  await new Promise<void>((resolve) => {
    emulator.add_listener('screen-put-char', (([row, column, character]: [number, number, number]) => {
      const line = screen[row];
      if (line === undefined) return;
      line[column] = String.fromCharCode(character);
      if (line.join('').includes(text)) resolve();
    }) as never);
  });
  await emulator.stop();
  await emulator.destroy();
}

const open = (volume: Volume, image: Uint8Array): Promise<Device> =>
  openDevice({
    source: bytesSource(image),
    // As in a browser, without a boot ID: only flushed writes survive.
    fileSystem: memfsFileSystem(volume, { bootId: undefined }),
    target: 'disk',
    hydrate: false,
  });

const fail = (error: unknown): void => {
  throw error;
};

describeWith([BIOS, VGA_BIOS, GRUB], 'a PC', () => {
  test('boots GRUB from a device, and fetches only the blocks it reads', async () => {
    const image = new Uint8Array(readFileSync(GRUB));
    const device = await open(new Volume(), image);
    await bootUntil(v86Disk(device, { onError: fail }), 'GNU GRUB');
    const { syncedBlocks, totalBlocks } = device.status();
    expect(syncedBlocks).toBeGreaterThan(0);
    expect(syncedBlocks).toBeLessThan(totalBlocks);
    await device.close();
  });

  test.each([true, false])('continues after a write once the write is durable (durable: %s)', async (durable) => {
    const image = new Uint8Array(2 ** 20);
    // A boot sector that writes itself to the third sector through the BIOS, and then shows "W#".
    const code = [0x31, 0xdb, 0x8e, 0xc3, 0xbb, 0, 0x7c, 0xb8, 1, 3, 0xb9, 3, 0, 0xba, 0x80, 0, 0xcd, 0x13];
    for (const character of 'W#') code.push(0xb8, character.charCodeAt(0), 0x0e, 0xcd, 0x10);
    image.set([...code, 0xf4, 0xeb, 0xfd]);
    image.set([0x55, 0xaa], 510);
    const volume = new Volume();
    const device = await open(volume, image);
    const disk = v86Disk(device, { onError: fail, durable });
    await bootUntil(disk, 'W#');
    if (durable) {
      // The process ends here; the next process finds the files in this state.
      const copy = Volume.fromJSON({});
      for (const name of Object.keys(volume.toJSON())) copy.writeFileSync(name, volume.readFileSync(name));
      const again = await open(copy, image);
      const found = new Uint8Array(512);
      await again.read(found, 1024);
      expectBytes(found, image.subarray(0, 512));
      await again.close();
    }
    const found = await new Promise<Uint8Array>((resolve) => disk.get(1024, 512, resolve));
    expectBytes(found, image.subarray(0, 512));
    await device.close();
  });
});
