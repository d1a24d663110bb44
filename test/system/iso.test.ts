/** The page's reader of ISO 9660, against images from genisoimage and what isoinfo reads from them. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findVolume, readDisk } from '../../src/web/volumes/disk.ts';
import { type Entry, readPart, type Volume } from '../../src/web/volumes/volume.ts';
import { expectBytes } from '../support/bytes.ts';
import { CHANGED_MS, contentsOf, makeFolder, makeIso } from '../support/disk-images.ts';
import { describeWith } from '../support/tools.ts';
import { visit } from '../support/visit-volumes.ts';
import { arrayBytes, find, visitDamaged } from '../support/volumes.ts';

/** Deeper than the eight levels of ISO 9660. */
const DEEP = 'a/b/c/d/e/f/g/h/i/j';

describeWith(['genisoimage', 'isoinfo'], 'an ISO 9660 image', () => {
  const work = mkdtempSync(join(tmpdir(), 'cod-iso-'));
  const folder = join(work, 'files');
  const image = join(work, 'image.iso');

  beforeAll(() => {
    makeFolder(folder, { links: true });
    mkdirSync(join(folder, DEEP), { recursive: true });
    writeFileSync(join(folder, DEEP, 'deep.txt'), contentsOf('deep'));
    writeFileSync(join(folder, 'n'.repeat(200)), contentsOf('long'));
  });

  afterAll(() => rmSync(work, { recursive: true, force: true }));

  async function volumeIn(bytes: Uint8Array): Promise<Volume> {
    const disk = arrayBytes(bytes);
    const found = await findVolume(disk, (await readDisk(disk)).parts[0]!);
    if (!('volume' in found)) throw new Error(found.reason);
    return found.volume;
  }

  async function contents(volume: Volume, path: string): Promise<Uint8Array> {
    const file = await volume.look(await find(volume, path));
    return readPart(volume, file, { from: 0, to: file.size });
  }

  /** Returns the paths of all entries, in order. */
  async function paths(volume: Volume, directory: Entry = volume.root, path = ''): Promise<string[]> {
    const found: string[] = [];
    for (const entry of (await volume.list(directory)).entries) {
      const own = `${path}/${entry.name}`;
      found.push(own, ...(entry.kind === 'directory' ? await paths(volume, entry, own) : []));
    }
    return found.sort();
  }

  /** The same as isoinfo tells it. */
  const isoinfo = (...args: string[]): string[] =>
    execFileSync('isoinfo', ['-f', '-i', image, ...args], { encoding: args.includes('-J') ? 'latin1' : 'utf8' })
      .split('\n')
      .filter((line) => line !== '')
      .sort();

  test('with Rock Ridge is read as written, also below eight levels and through links', async () => {
    makeIso(image, { folder });
    const volume = await volumeIn(readFileSync(image));
    expect([volume.kind, volume.label, volume.remark]).toEqual(['ISO 9660 with Rock Ridge', 'PEBBLES', undefined]);
    // isoinfo shows a directory that was moved in both places.
    const moved = /^\/(rr_moved\/.+|a\/b\/c\/d\/e\/f\/g(\/.+)?)$/;
    const outside = (all: string[]): string[] => all.filter((path) => !moved.test(path));
    expect(outside(await paths(volume))).toEqual(outside(isoinfo('-R')));
    for (const name of ['licence.txt', 'big.bin', 'empty']) expectBytes(await contents(volume, name), contentsOf(name));
    expectBytes(await contents(volume, `${DEEP}/deep.txt`), contentsOf('deep'));
    expectBytes(await contents(volume, 'n'.repeat(200)), contentsOf('long'));
    expect((await find(volume, 'licence.txt')).modifiedMs).toBe(CHANGED_MS);
    const target = async (name: string): Promise<unknown> => (await volume.look(await find(volume, name))).linkTarget;
    expect(await target('short link')).toBe('docs/deeper/note.md');
    expect(await target('long link')).toBe(`${'docs/../'.repeat(10)}licence.txt`);
  });

  test.each([
    ['Joliet', ['-J', '-joliet-long', '-D'], ['-J', '-j', 'iso8859-1'], 'docs/deeper/note.md'],
    ['plain names', ['-D'], [], 'DOCS/DEEPER/NOTE.MD'],
  ] as const)('with %s is read as written', async (_, more, args, note) => {
    makeIso(image, { folder, more });
    const volume = await volumeIn(readFileSync(image));
    expect(volume.label).toBe('PEBBLES');
    expect(await paths(volume)).toEqual(isoinfo(...args).map((path) => path.replace(/\.?;1$/, '')));
    expectBytes(await contents(volume, note), contentsOf('note.md'));
  });

  test('with a file in several extents is read as one file', async () => {
    const small = join(work, 'small');
    mkdirSync(small);
    for (const name of ['one', 'two', 'zoo']) writeFileSync(join(small, name), contentsOf(name));
    makeIso(image, { folder: small, more: [] });
    const bytes = readFileSync(image);
    for (const name of ['ONE.;1', 'TWO.;1']) bytes[bytes.indexOf(name) - 8]! |= 0x80;
    const volume = await volumeIn(bytes);
    const whole = Buffer.concat(['one', 'two', 'zoo'].map(contentsOf));
    expect((await find(volume, 'ZOO')).size).toBe(whole.length);
    expectBytes(await contents(volume, 'ZOO'), whole);
  });

  test('with arbitrary damage is read or refused in bounded time', async () => {
    const deep = join(work, 'deep');
    mkdirSync(join(deep, DEEP), { recursive: true });
    writeFileSync(join(deep, DEEP, 'deep.txt'), contentsOf('deep'));
    for (const name of ['n', 'o', 'p']) writeFileSync(join(deep, name.repeat(200)), contentsOf('note.md'));
    symlinkSync('docs/../'.repeat(30), join(deep, 'link'));
    makeIso(image, { folder: deep, more: ['-R'] });
    const original = readFileSync(image);
    expect(await visit(arrayBytes(original))).toMatchObject({ volumes: 1, refusals: 0 });
    // Only metadata: the directories follow the descriptors, and precede the files.
    const end = original.indexOf(contentsOf('note.md'));
    const places = Array.from(original.subarray(0, end).keys()).filter((at) => at >= 0x8000 && original[at] !== 0);
    expect(await visitDamaged(original, places)).toBeGreaterThan(0);
  });
});
