/** Files that the page puts into FAT volumes, checked by dosfstools and mtools after each write. */

import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { type Random, seededRandom } from '../../src/testing/random.ts';
import { checkRange } from '../../src/web/volumes/bytes.ts';
import { openFat } from '../../src/web/volumes/fat.ts';
import { type NewFile, type PutOptions, putFile } from '../../src/web/volumes/fat-writer.ts';
import { readPart } from '../../src/web/volumes/volume.ts';
import type { WritableBytes } from '../../src/web/volumes/writable.ts';
import { expectBytes } from '../support/bytes.ts';
import { describeWith, toolPath } from '../support/tools.ts';
import { find } from '../support/volumes.ts';

const SEED = Number(process.env['COD_FAT_SEED'] ?? Date.now() % 2 ** 31);
const ROUNDS = Number(process.env['COD_FAT_ROUNDS'] ?? 4);
/** `COD_FAT_SEED` repeats a run. */
const REPEAT = `COD_FAT_SEED=${SEED} COD_FAT_ROUNDS=${ROUNDS}`;

/**
 * The first names, for a directory of two clusters of 16 entries: one that needs new clusters, one that fits, one that
 * leaves a gap before the next cluster, one that is replaced.
 */
const FIRST_NAMES = [`${'very '.repeat(45)}1`, 'A', `${'very '.repeat(30)}2`, 'A'];

/** What a crash may leave, in the words of fsck.fat. */
const HARMLESS = [
  /^fsck\.fat /,
  /^FATs differ but appear to be intact\./,
  /^\s*Using first FAT/,
  /^Automatically choosing first FAT/,
  /^Reclaimed \d+ unused clusters? \(\d+ bytes\)\.$/,
  /^Free cluster summary wrong/,
  /^\s*Auto-correcting\.$/,
  /^Leaving filesystem unchanged\.$/,
  /files, \d+\/\d+ clusters$/,
  /^$/,
];

describeWith(['mkfs.fat', 'fsck.fat', 'mcopy', 'mmd', 'mattrib'], 'a file put into FAT', () => {
  const work = mkdtempSync(join(tmpdir(), 'cod-fat-'));
  let made = 0;
  afterAll(() => rmSync(work, { recursive: true, force: true }));

  function make(bits: number, kibibytes: number, ...more: string[]): string {
    const path = join(work, `fat-${made++}`);
    writeFileSync(path, '');
    truncateSync(path, kibibytes * 1024);
    execFileSync(toolPath('mkfs.fat')!, ['-F', String(bits), ...more, path], { stdio: 'pipe' });
    return path;
  }

  function mtool(name: string, ...args: string[]): string {
    return execFileSync(toolPath(name)!, args, {
      encoding: 'utf8',
      env: { ...process.env, TZ: 'UTC', LC_ALL: 'C.UTF-8' },
    });
  }

  /** The volume in a file. `afterWrite` is called when the file has the bytes of a write. */
  function open(path: string, afterWrite: () => void = () => undefined): WritableBytes & { close(): void } {
    const file = openSync(path, 'r+');
    const volume = {
      size: statSync(path).size,
      read: async (offset: number, length: number): Promise<Uint8Array> => {
        checkRange(volume, offset, length);
        const bytes = new Uint8Array(length);
        readSync(file, bytes, 0, length, offset);
        return bytes;
      },
      write: async (offset: number, bytes: Uint8Array): Promise<void> => {
        writeSync(file, bytes, 0, bytes.length, offset);
        afterWrite();
      },
      flush: async (): Promise<void> => undefined,
      close: () => closeSync(file),
    };
    return volume;
  }

  function fsck(path: string): { status: number | null; lines: string[] } {
    const { status, stdout } = spawnSync(toolPath('fsck.fat')!, ['-n', path], { encoding: 'utf8' });
    return { status, lines: stdout.split('\n') };
  }

  function expectClean(path: string): void {
    expect(fsck(path)).toMatchObject({ status: 0 });
  }

  function expectHarmless(path: string): void {
    const { status, lines } = fsck(path);
    expect(
      lines.filter((line) => !HARMLESS.some((pattern) => pattern.test(line))),
      REPEAT,
    ).toEqual([]);
    expect([0, 1]).toContain(status);
  }

  const fileOf = (name: string, contents: Uint8Array, path: readonly string[] = []): NewFile => ({
    path,
    name,
    size: contents.length,
    modifiedMs: Date.UTC(2024, 1, 29, 12, 34, 56),
    read: async (from, length) => contents.slice(from, from + length),
  });

  async function put(path: string, file: NewFile, options: Partial<PutOptions> = {}): Promise<string> {
    const volume = open(path);
    try {
      return await putFile(volume, file, { nowMs: Date.UTC(2026, 0, 2), ...options });
    } finally {
      volume.close();
    }
  }

  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  const readBack = (path: string, name: string): Uint8Array =>
    execFileSync(toolPath('mcopy')!, ['-i', path, `::${name}`, '-'], {
      maxBuffer: 2 ** 26,
      env: { ...process.env, LC_ALL: 'C.UTF-8' },
    });

  /** Names of all kinds: short, in lower and mixed case, long, with other letters, and alike in the beginning. */
  function randomName(random: Random): string {
    const kinds = [
      () => `F${random.below(9)}.TXT`,
      () => `low${random.below(9)}.txt`,
      () => `Mixed${random.below(9)}.Case`,
      () => `a long name, number ${random.below(40)}.text`,
      () => `ünïcode ${random.below(9)} 😀.md`,
      () => `.hidden${random.below(5)}`,
      () => `${'very '.repeat(30 + random.below(20))}${random.below(9)}.tar.gz`,
    ];
    return kinds[random.below(kinds.length)]!();
  }

  test.each([
    ['FAT12', make(12, 1440)],
    ['FAT12 with clusters of 4 KiB', make(12, 8192, '-s', '8')],
    ['FAT16', make(16, 4096, '-s', '1')],
    ['FAT16 with sectors of 4 KiB', make(16, 40_960, '-S', '4096', '-s', '1')],
    ['FAT32', make(32, 36_000, '-s', '1')],
  ])('leaves at most lost clusters in %s at any moment', async (_, path) => {
    const random = seededRandom(SEED);
    mtool('mmd', '-i', path, '::deep', '::deep/er');
    const model = new Map<string, Uint8Array>();
    for (let round = 0; round < ROUNDS + FIRST_NAMES.length; round++) {
      const given = FIRST_NAMES[round];
      const name = given ?? randomName(random);
      const folder = given === undefined && random.below(3) === 0 ? [] : ['deep', 'er'];
      const contents = random.fill(new Uint8Array(random.below(4) === 0 ? 0 : random.below(9000)));
      const volume = open(path, () => expectHarmless(path));
      const outcome = await putFile(volume, fileOf(name, contents, folder), { replace: true, nowMs: 0 });
      volume.close();
      expect(outcome).toBe('written');
      expectClean(path);
      model.set([...folder, name].join('/'), contents);
    }
    const files = join(work, `files-${made++}`);
    mkdirSync(files);
    mtool('mcopy', '-s', '-n', '-i', path, '::', files);
    for (const [name, contents] of model) {
      // mtools does not know the characters beyond 16 bits.
      if (!name.includes('😀')) expectBytes(readFileSync(join(files, name)), contents);
    }
    const volume = open(path);
    const read = (await openFat(volume))!;
    for (const [name, contents] of model) {
      const info = await read.look(await find(read, name));
      expectBytes(await readPart(read, info, { from: 0, to: info.size }), contents);
    }
    volume.close();
  });

  test('has the names, the times and the aliases that mtools reads', async () => {
    const path = make(12, 1440);
    for (const name of ['lower.txt', 'Mixed.txt', 'UPPER.TXT', 'two words.text', 'two words.tex', 'ä.b'])
      await put(path, fileOf(name, text(name)));
    const listing = mtool('mdir', '-i', path, '::');
    for (const line of [
      /^lower\s+txt\s+9 2024-02-29/m,
      /^MIXED~1\s+TXT\s+9 2024-02-29\s+12:34\s+Mixed\.txt/m,
      /^UPPER\s+TXT\s+9/m,
      /^TWOWOR~1\s+TEX\s+14 .*two words\.text/m,
      /^TWOWOR~2\s+TEX\s+13 .*two words\.tex/m,
      /^_~1\s+B\s+.*ä\.b/m,
    ])
      expect(listing).toMatch(line);
    expectClean(path);
  });

  test('is not replaced unless asked, and not by its short name or in place of a directory', async () => {
    const path = make(16, 4096, '-s', '1');
    await put(path, fileOf('A long name.txt', text('first')));
    expect(await put(path, fileOf('a LONG name.txt', text('second')))).toBe('exists');
    await expect(put(path, fileOf('ALONGN~1.TXT', text('second')), { replace: true })).rejects.toThrow(
      /is the short name of “A long name.txt”/,
    );
    mtool('mmd', '-i', path, '::dir');
    await expect(put(path, fileOf('DIR', text('second')), { replace: true })).rejects.toThrow('is a directory here');
    mtool('mattrib', '+r', '-i', path, '::A long name.txt');
    await expect(put(path, fileOf('A long name.txt', text('x')), { replace: true })).rejects.toThrow('read-only');
    expectBytes(readBack(path, 'A long name.txt'), text('first'));
    expectClean(path);
  });

  test('is refused with both sizes before anything is written if the volume or the directory is full', async () => {
    const path = make(12, 64, '-r', '16');
    const before = readFileSync(path);
    await expect(put(path, fileOf('big', new Uint8Array(70_000)))).rejects.toThrow(
      /the volume is full: this needs 71,680 bytes, and \d\d,\d{3} are free/,
    );
    expectBytes(readFileSync(path), before);
    for (let index = 0; index < 16; index++) await put(path, fileOf(`F${index}`, new Uint8Array(0)));
    const full = readFileSync(path);
    await expect(put(path, fileOf('ONE_MORE', text('x')))).rejects.toThrow(/the root directory is full.*16 entries/);
    expectBytes(readFileSync(path), full);
    expectClean(path);
  });

  test.each([
    ['a/b', 'a character that FAT does not permit'],
    ['what?', 'a character that FAT does not permit'],
    ['..', 'is not the name of a file'],
    ['dot.', 'ends with a dot'],
    ['con.txt', 'the name of a device'],
    ['x'.repeat(256), 'longer than 255'],
  ])('is refused by its name %s', async (name, reason) => {
    await expect(put(make(12, 64), fileOf(name, text('x')))).rejects.toThrow(reason);
  });

  test.each([
    ['that was not unmounted', 16, (view: DataView) => view.setUint8(37, 1), 'was not unmounted'],
    [
      'whose table says so',
      16,
      (view: DataView, fat: number) => view.setUint16(fat + 2, 0x7fff, true),
      'not unmounted',
    ],
    ['without mirrored tables', 32, (view: DataView) => view.setUint16(40, 0x81, true), 'does not mirror'],
    ['that was cut', 16, (view: DataView) => view.setUint16(19, 60_000, true), 'is cut'],
  ] as const)('is refused by a volume %s', async (_, bits, damage, reason) => {
    const path = bits === 16 ? make(16, 4096, '-s', '1') : make(32, 36_000, '-s', '1');
    const bytes = readFileSync(path);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    damage(view, view.getUint16(14, true) * 512);
    writeFileSync(path, bytes);
    await expect(put(path, fileOf('x', text('x')))).rejects.toThrow(reason);
    expectBytes(readFileSync(path), bytes);
  });

  test('is refused if the tables differ, or if the clusters of a replaced file do not match its size', async () => {
    const path = make(16, 4096, '-s', '1');
    await put(path, fileOf('x', new Uint8Array(2000)));
    const sound = readFileSync(path);
    const fat = sound.readUInt16LE(14) * 512;
    const fatBytes = sound.readUInt16LE(22) * 512;
    const differing = Buffer.from(sound);
    differing[fat + fatBytes + 20] = 1;
    writeFileSync(path, differing);
    await expect(put(path, fileOf('y', text('y')))).rejects.toThrow('copies of the file allocation table differ');
    const longer = Buffer.from(sound);
    // The second of four clusters ends the chain.
    for (const copy of [0, 1]) longer.writeUInt16LE(0xffff, fat + copy * fatBytes + 6);
    writeFileSync(path, longer);
    await expect(put(path, fileOf('x', text('y')), { replace: true })).rejects.toThrow('do not match its size');
    expectBytes(readFileSync(path), longer);
    const cycle = Buffer.from(sound);
    // The second cluster leads back to the first: the chain ends as soon as it is longer than the file.
    for (const copy of [0, 1]) cycle.writeUInt16LE(2, fat + copy * fatBytes + 6);
    writeFileSync(path, cycle);
    await expect(put(path, fileOf('x', text('y')), { replace: true })).rejects.toThrow('do not match its size');
  });

  test('can be stopped before it becomes visible, and ends with an error if its source is shorter', async () => {
    const path = make(16, 8192, '-s', '1');
    const stop = new AbortController();
    const contents = new Uint8Array(3 * 2 ** 20);
    const stopped = put(path, fileOf('big', contents), { signal: stop.signal, onProgress: () => stop.abort() });
    await expect(stopped).rejects.toThrow('aborted');
    expectClean(path);
    await expect(put(path, { ...fileOf('big', contents), size: 3_500_000 })).rejects.toThrow('shorter than it was');
    expectClean(path);
  });
});
