/** The page's readers of partition tables and volumes, against images from the usual programs. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findVolume, readDisk } from '../../src/web/volumes/disk.ts';
import { type Entry, readPart, type Volume } from '../../src/web/volumes/volume.ts';
import { expectBytes } from '../support/bytes.ts';
import { CHANGED_MS, contentsOf, imageTools, makeDisk, makeExt, makeFat, makeFolder } from '../support/disk-images.ts';
import { describeWith, toolPath } from '../support/tools.ts';
import { visit } from '../support/visit-volumes.ts';
import { arrayBytes, find, visitDamaged } from '../support/volumes.ts';

describeWith([...imageTools, 'debugfs'], 'a disk image', () => {
  const work = mkdtempSync(join(tmpdir(), 'cod-volumes-'));
  const linked = join(work, 'linked');
  const plain = join(work, 'plain');
  let made = 0;
  const path = (): string => join(work, `image-${made++}`);

  beforeAll(() => {
    makeFolder(linked, { links: true });
    makeFolder(plain, { links: false });
  });

  afterAll(() => rmSync(work, { recursive: true, force: true }));

  /** The only volume of an image without partitions. */
  async function volumeIn(file: string): Promise<Volume> {
    const disk = arrayBytes(readFileSync(file));
    const { table, parts } = await readDisk(disk);
    expect([table, parts.length]).toEqual([undefined, 1]);
    const found = await findVolume(disk, parts[0]!);
    if (!('volume' in found)) throw new Error(found.reason);
    return found.volume;
  }

  async function contents(volume: Volume, entry: Entry): Promise<Uint8Array> {
    const file = await volume.look(entry);
    return readPart(volume, file, { from: 0, to: file.size });
  }

  /** Checks the files that every volume here contains. */
  async function expectFolder(volume: Volume): Promise<void> {
    const names = (await volume.list(volume.root)).entries
      .map(({ name }) => name)
      .filter((name) => name !== 'lost+found');
    expect(names).toEqual(
      expect.arrayContaining(['docs', 'many', 'licence.txt', 'big.bin', 'empty', 'A longer name, with ümläuts.txt']),
    );
    for (const name of ['licence.txt', 'big.bin', 'empty', 'A longer name, with ümläuts.txt'])
      expectBytes(await contents(volume, await find(volume, name)), contentsOf(name));
    expectBytes(await contents(volume, await find(volume, 'docs/deeper/note.md')), contentsOf('note.md'));
    const many = await find(volume, 'many');
    const { entries, cut } = await volume.list(many);
    expect([entries.length, cut]).toEqual([300, false]);
    expect(new Set(entries.map(({ name }) => name)).size).toBe(300);
    expectBytes(await contents(volume, await find(volume, 'many/file number 217.txt')), contentsOf('217'));
    const licence = await volume.look(await find(volume, 'licence.txt'));
    expect(licence.modifiedMs).toBe(
      volume.kind.startsWith('FAT') ? CHANGED_MS + new Date(CHANGED_MS).getTimezoneOffset() * 60_000 : CHANGED_MS,
    );
    const middle = await readPart(volume, await volume.look(await find(volume, 'big.bin')), {
      from: 999_999,
      to: 1_200_001,
    });
    expectBytes(middle, contentsOf('big.bin').subarray(999_999, 1_200_001));
  }

  for (const [kind, more] of [
    ['ext2', []],
    ['ext3', ['-b', '1024']],
    ['ext4', []],
    ['ext4', ['-b', '1024', '-O', '^64bit,^metadata_csum']],
    ['ext4', ['-O', 'meta_bg,^resize_inode', '-g', '1024']],
    ['ext2', ['-r', '0', '-O', 'none']],
  ] as const) {
    test(`reads ${kind} ${more.join(' ')} as written`, async () => {
      const image = path();
      makeExt(image, { kind, folder: linked, mebibytes: 32, more });
      const volume = await volumeIn(image);
      expect([volume.kind, volume.label, volume.remark]).toEqual([kind, 'stones', undefined]);
      await expectFolder(volume);
      expect((await volume.look(await find(volume, 'short link'))).linkTarget).toBe('docs/deeper/note.md');
      expect((await volume.look(await find(volume, 'long link'))).linkTarget).toBe(
        `${'docs/../'.repeat(10)}licence.txt`,
      );
      const sparse = await contents(volume, await find(volume, 'sparse'));
      const expected = new Uint8Array(5_000_003);
      expected.set(new TextEncoder().encode('begin'));
      expected.set(new TextEncoder().encode('end'), 5_000_000);
      expectBytes(sparse, expected);
      const { runs } = await volume.look(await find(volume, 'sparse'));
      const holes: number[] = [];
      for await (const run of runs()) if (run.offset === undefined) holes.push(run.length);
      expect(holes.length).toBeGreaterThan(0);
    });
  }

  test('reports an ext4 volume that was not unmounted', async () => {
    const image = path();
    makeExt(image, { kind: 'ext4', folder: plain, mebibytes: 32 });
    execFileSync(toolPath('debugfs')!, ['-w', '-R', 'feature needs_recovery', image], { stdio: 'ignore' });
    const volume = await volumeIn(image);
    expect(volume.remark).toMatch(/journal/);
    await expectFolder(volume);
  });

  test('reads a file with a tree of hundreds of extents as written', async () => {
    const image = path();
    makeExt(image, { kind: 'ext4', folder: plain, mebibytes: 32, more: ['-b', '1024'] });
    // Frees every second block of a file that fills the volume, so that the second file fills the holes.
    const commands = [
      `write ${join(plain, 'big.bin')} first`,
      ...Array.from({ length: 1400 }, (_, index) => `punch first ${index * 2} ${index * 2}`),
      `write ${join(plain, 'big.bin')} second`,
    ];
    execFileSync(toolPath('debugfs')!, ['-w', '-f', '-', image], {
      input: commands.join('\n'),
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const volume = await volumeIn(image);
    const first = await contents(volume, await find(volume, 'first'));
    const expected = contentsOf('big.bin').slice();
    for (let index = 0; index < 1400; index++) expected.fill(0, index * 2048, index * 2048 + 1024);
    expectBytes(first, expected);
    let pieces = 0;
    for await (const _ of (await volume.look(await find(volume, 'first'))).runs()) pieces++;
    expect(pieces).toBeGreaterThan(1000);
    expectBytes(await contents(volume, await find(volume, 'second')), contentsOf('big.bin'));
  });

  for (const [bits, mebibytes, more] of [
    [12, 8, []],
    [16, 32, []],
    [32, 64, ['-s', '1']],
    [32, 300, []],
    [16, 40, ['-S', '2048', '-s', '1']],
  ] as const) {
    test(`reads FAT${bits} of ${mebibytes} MiB ${more.join(' ')} as written`, async () => {
      const image = path();
      makeFat(image, { bits, folder: plain, mebibytes, more });
      const volume = await volumeIn(image);
      expect([volume.kind, volume.label]).toEqual([`FAT${bits}`, 'PEBBLES']);
      await expectFolder(volume);
    });
  }

  test('lists the partitions of a GPT with names, types and volumes', async () => {
    const [ext, fat, image] = [path(), path(), path()];
    makeExt(ext, { kind: 'ext4', folder: linked, mebibytes: 24 });
    makeFat(fat, { bits: 12, folder: plain, mebibytes: 8 });
    const table = `label: gpt
start=1MiB, size=8MiB, type=U, name="the boot"
start=10MiB, size=24MiB, type=L, name="wurzel"
start=36MiB, size=2MiB, type=S
`;
    makeDisk(image, {
      mebibytes: 40,
      table,
      volumes: [
        { at: 1, path: fat },
        { at: 10, path: ext },
      ],
    });
    const bytes = readFileSync(image);
    const disk = arrayBytes(bytes);
    const found = await readDisk(disk);
    expect(found.table).toMatchObject({ kind: 'GPT', remark: undefined });
    const mib = 2 ** 20;
    expect(found.parts).toEqual([
      { number: 1, start: mib, size: 8 * mib, type: 'EFI system', name: 'the boot' },
      { number: 2, start: 10 * mib, size: 24 * mib, type: 'Linux', name: 'wurzel' },
      { number: 3, start: 36 * mib, size: 2 * mib, type: 'Linux swap', name: '' },
    ]);
    for (const part of found.parts.slice(0, 2)) {
      const volume = await findVolume(disk, part);
      if (!('volume' in volume)) throw new Error(volume.reason);
      await expectFolder(volume.volume);
    }
    expect(await findVolume(disk, found.parts[2]!)).toEqual({
      kind: undefined,
      reason: expect.stringMatching(/unknown contents/),
    });

    // If the first table is damaged, the second is read. If both are damaged, the error says so.
    const first = Uint8Array.from(bytes);
    first[1024 + 56] = 0x41;
    expect(await readDisk(arrayBytes(first))).toEqual({
      ...found,
      table: { ...found.table!, remark: expect.stringMatching(/backup at the end/) },
    });
    first[bytes.length - 512 - 32 * 512 + 57] = 0x41;
    expect((await readDisk(arrayBytes(first))).table?.remark).toMatch(/checksums/);
  });

  test('lists the primary and logical partitions of an MBR', async () => {
    const image = path();
    const table = `label: dos
start=1MiB, size=4MiB, type=c, bootable
start=6MiB, size=30MiB, type=f
start=7MiB, size=3MiB, type=83
start=12MiB, size=5MiB, type=82
start=20MiB, size=6MiB, type=8e
`;
    makeDisk(image, { mebibytes: 40, table, volumes: [] });
    const disk = arrayBytes(readFileSync(image));
    const { table: found, parts } = await readDisk(disk);
    expect(found).toMatchObject({ kind: 'MBR', remark: undefined });
    const mib = 2 ** 20;
    expect(parts.map(({ number, start, size, type }) => [number, start / mib, size / mib, type])).toEqual([
      [1, 1, 4, 'FAT32'],
      [5, 7, 3, 'Linux'],
      [6, 12, 5, 'Linux swap'],
      [7, 20, 6, 'Linux LVM'],
    ]);
  });

  test('reads or refuses an image with arbitrary damage in bounded time', async () => {
    const [ext, fat, image] = [path(), path(), path()];
    makeExt(ext, { kind: 'ext4', folder: linked, mebibytes: 6, more: ['-b', '1024', '-O', '^has_journal'] });
    makeFat(fat, { bits: 12, folder: plain, mebibytes: 4 });
    const table = 'label: gpt\nstart=1MiB, size=4MiB, type=U\nstart=6MiB, size=6MiB, type=L\n';
    makeDisk(image, {
      mebibytes: 13,
      table,
      volumes: [
        { at: 1, path: fat },
        { at: 6, path: ext },
      ],
    });
    const original = readFileSync(image);
    const whole = await visit(arrayBytes(original));
    expect(whole).toMatchObject({ volumes: 2, refusals: 0 });
    // Only metadata: a change elsewhere would only change file contents.
    const places = Array.from(original.keys()).filter(
      (at) => original[at] !== 0 && (at < 2 ** 20 + 40_000 || (at >= 6 * 2 ** 20 && at < 6 * 2 ** 20 + 400_000)),
    );
    const refusals = await visitDamaged(original, places);
    expect(refusals).toBeGreaterThan(10);
  });
});
