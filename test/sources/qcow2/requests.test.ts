/** How many requests a read of compressed clusters costs. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bytesSource } from '../../../src/sources/bytes.ts';
import { qcow2Source } from '../../../src/sources/qcow2/source.ts';
import type { Source } from '../../../src/sources/source.ts';
import { expectBytes } from '../../support/bytes.ts';
import { describeWith } from '../../support/tools.ts';
import { diskBytes, qemu, qemuTools } from './images.ts';

const KIB = 1024;
const MIB = 2 ** 20;
/** Compressed text, from the disk's third MiB on. */
const TEXT = 2 * MIB;

describeWith(qemuTools, 'a read of compressed clusters', () => {
  const disk = diskBytes(1);
  let folder: string;
  let bytes: Buffer;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'cod-requests-'));
    writeFileSync(join(folder, 'raw'), disk);
    qemu('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', join(folder, 'raw'), join(folder, 'image'));
    bytes = readFileSync(join(folder, 'image'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Opens the image, with its tables in memory. `requests` counts from then on. */
  async function open(fail = false): Promise<{ source: Source; requests: [offset: number, length: number][] }> {
    const requests: [number, number][] = [];
    const file = bytesSource(bytes);
    let isOpen = false;
    const counted: Source = {
      size: file.size,
      read: async (into, offset) => {
        if (isOpen) requests.push([offset, into.length]);
        if (isOpen && fail) throw new Error('away');
        await file.read(into, offset);
      },
      close: () => file.close(),
    };
    const source = await qcow2Source(counted);
    await source.read(new Uint8Array(512), 0);
    isOpen = true;
    return { source, requests };
  }

  async function readAt(source: Source, offset: number, length: number): Promise<void> {
    const into = new Uint8Array(length);
    await source.read(into, offset);
    expectBytes(into, disk.subarray(offset, offset + length));
  }

  it('that follow each other takes one request', async () => {
    const { source, requests } = await open();
    await readAt(source, TEXT, 256 * KIB);
    expect(requests.length).toBe(1);
    await readAt(source, TEXT + 60 * KIB, 100 * KIB);
    expect(requests.length).toBe(1);
  });

  it('asks for the clusters only that are not in memory', async () => {
    const { source, requests } = await open();
    await readAt(source, TEXT, 96 * KIB);
    await readAt(source, TEXT + 96 * KIB, 96 * KIB);
    const [one, other] = requests as [[number, number], [number, number]];
    expect(requests.length).toBe(2);
    // Two clusters share a sector at most.
    expect(other[0]).toBeGreaterThan(one[0] + one[1] - 512);
  });

  it('shares it with readers of the same clusters', async () => {
    const { source, requests } = await open();
    await Promise.all([readAt(source, TEXT, 256 * KIB), readAt(source, TEXT + 64 * KIB, 128 * KIB)]);
    expect(requests.length).toBe(1);
  });

  it('beside clusters that are not compressed takes few', async () => {
    const { source, requests } = await open();
    for (let offset = 3 * MIB; offset < 5 * MIB; offset += 512 * KIB) await readAt(source, offset, 512 * KIB);
    expect(requests.length).toBeLessThanOrEqual(8);
  });

  it('rejects with the error of the request, and keeps nothing of it', async () => {
    const { source, requests } = await open(true);
    for (let round = 1; round <= 2; round++) {
      await expect(source.read(new Uint8Array(256 * KIB), TEXT)).rejects.toThrow('away');
      expect(requests.length).toBe(round);
    }
  });
});
