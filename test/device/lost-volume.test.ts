/**
 * Storage that loses what was not synced, or holds other bytes in its place. Flushed writes are there. No byte reads as
 * anything but the source or a write, whatever the boot's name says.
 */

import { describe, expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { Device, FileSystem } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { CrashingFileSystem, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { MemoryFiles } from '../log/memory-files.ts';

const BLOCK = 4096;

/** Opens a device whose time stands still. */
function open(fileSystem: FileSystem, content: Uint8Array): Promise<Device> {
  return openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(1) },
    { source: bytesSource(content, { identity: 'x' }), fileSystem, target: 'disk', hydrate: false },
  );
}

async function readAll(device: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

describe('a volume that is lost while the machine runs on', () => {
  it('shows no byte that was never written, when writes come during a flush', async () => {
    const content = new Uint8Array(64 * BLOCK).fill(7);
    let lost = 0;
    for (let seed = 0; seed < 300; seed++) {
      const random = seededRandom(seed);
      const before = new CrashingFileSystem({ bootId: 'a' });
      const device = await open(before, content);
      await device.write(new Uint8Array(BLOCK).fill(200), 0);
      const flushing = device.flush();
      const later = Array.from({ length: 6 }, () => (10 + random.below(40)) * BLOCK);
      for (const offset of later) await device.write(new Uint8Array(BLOCK).fill(201), offset);
      await flushing;
      const after = before.crash({ kind: 'loss', random });
      expect(after.bootId).toBe('a');
      const again = await open(after, content);
      const found = await readAll(again);
      await again.close();
      expect(found.subarray(0, BLOCK).every((byte) => byte === 200)).toBe(true);
      const allowed = (byte: number, at: number): boolean =>
        byte === 7 || (byte === 201 && later.includes(at - (at % BLOCK)));
      expect(found.subarray(BLOCK).every((byte, index) => allowed(byte, BLOCK + index))).toBe(true);
      if (later.some((offset) => found[offset] === 7)) lost++;
    }
    expect(lost).toBeGreaterThan(30);
  });
});

describe('pages of the log that were never synced', () => {
  it.each(['zeros', 'other bytes'])(
    'may hold %s after the last barrier: every flushed write is there',
    async (kind) => {
      const content = new Uint8Array(2 ** 20).fill(0x11);
      const files = new MemoryFiles();
      const device = await open(files, content);
      for (let index = 0; index < 40; index++) await device.write(new Uint8Array(100).fill(0xf0), index * 2 * BLOCK);
      await device.flush();
      const flushed = files.images();
      for (let index = 0; index < 900; index++) {
        const offset = (index % 128) * 2 * BLOCK + BLOCK + (index >> 7) * 60;
        await device.write(new Uint8Array(50).fill(0xe0), offset);
      }
      const images = files.images();
      let changed = 0;
      for (const [name, { bytes, size }] of images) {
        if (!name.startsWith('disk.wil')) continue;
        const damaged = bytes.slice();
        const known = flushed.get(name)?.bytes.length ?? 0;
        for (let at = Math.ceil(known / BLOCK) * BLOCK; at < damaged.length; at += BLOCK, changed++) {
          const page = damaged.subarray(at, at + BLOCK);
          if (kind === 'zeros') page.fill(0);
          else for (let index = 0; index < page.length; index++) page[index] = ((at + index) * 131) & 255;
        }
        images.set(name, { bytes: damaged, size });
      }
      expect(changed).toBeGreaterThan(10);
      const again = await open(new MemoryFiles(images), content);
      for (let index = 0; index < 40; index++) {
        const found = new Uint8Array(100);
        await again.read(found, index * 2 * BLOCK);
        expect(found.every((byte) => byte === 0xf0)).toBe(true);
      }
      await again.close();
      await device.close();
    },
  );
});
