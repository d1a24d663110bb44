/** Archives that the page makes of directories, read by Python's zipfile. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { collectFolder, zipFolder } from '../../src/web/folder-zip.ts';
import { VolumeError } from '../../src/web/volumes/bytes.ts';
import { openExt } from '../../src/web/volumes/ext.ts';
import { resolvePath } from '../../src/web/volumes/paths.ts';
import type { Entry, Volume } from '../../src/web/volumes/volume.ts';
import { contentsOf, makeExt, makeFolder } from '../support/disk-images.ts';
import { describeWith, toolPath } from '../support/tools.ts';
import { arrayBytes } from '../support/volumes.ts';

/** Prints each entry of an archive with its mode and the SHA-256 of its bytes, after the test of all checksums. */
const LIST = `
import sys, json, zipfile, hashlib
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
print(json.dumps({e.filename: [e.external_attr >> 16, e.date_time[0], hashlib.sha256(archive.read(e)).hexdigest()]
                  for e in archive.infolist()}))
`;

describeWith(['mke2fs', 'debugfs', 'python3'], 'a directory as an archive', () => {
  const work = mkdtempSync(join(tmpdir(), 'cod-zip-'));
  let volume: Volume;
  const { signal } = new AbortController();

  beforeAll(async () => {
    const image = join(work, 'ext4');
    makeExt(image, { kind: 'ext4', folder: makeFolder(join(work, 'files'), { links: true }), mebibytes: 16 });
    const commands = 'mknod pipe p\ncd docs\nsymlink up ..\nsymlink far /docs/deeper\nsymlink loop loop\n';
    execFileSync(toolPath('debugfs')!, ['-w', '-f', '-', image], {
      input: commands,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    volume = (await openExt(arrayBytes(readFileSync(image))))!;
  });

  afterAll(() => rmSync(work, { recursive: true, force: true }));

  async function archive(from: Volume, directory: Entry): Promise<Record<string, [number, number, string]>> {
    const found = await collectFolder(from, directory, { signal, onProgress: () => undefined });
    const pieces: Uint8Array[] = [];
    for await (const piece of zipFolder(from, found, { signal, onProgress: () => undefined })) pieces.push(piece);
    const path = join(work, 'archive.zip');
    writeFileSync(path, Buffer.concat(pieces));
    return JSON.parse(execFileSync(toolPath('python3')!, ['-c', LIST, path], { encoding: 'utf8' }));
  }

  const hash = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

  test('has the files, directories and links of the volume, and names what is left out', async () => {
    const entries = await archive(volume, volume.root);
    for (const name of ['licence.txt', 'big.bin', 'empty', 'A longer name, with ümläuts.txt'])
      expect(entries[name]).toEqual([0o100664, expect.any(Number), hash(contentsOf(name))]);
    expect(entries['licence.txt']![1]).toBe(2024);
    expect(entries['docs/deeper/']![0]).toBe(0o40775);
    expect(entries['docs/deeper/note.md']![2]).toBe(hash(contentsOf('note.md')));
    expect(entries['short link']).toEqual([0o120777, expect.any(Number), hash('docs/deeper/note.md')]);
    expect(Object.keys(entries).filter((name) => name.startsWith('many/'))).toHaveLength(301);
    expect(entries['pipe']).toBeUndefined();
    expect(entries['NOT READ.txt']![2]).toBe(hash('pipe: left out: a device, a socket or a pipe\n'));
  });

  test('cuts a file that cannot be read, says so, and ends when the device fails', async () => {
    const big = (await volume.list(volume.root)).entries.find(({ name }) => name === 'big.bin')!;
    const failing = (error: Error): Volume => ({
      ...volume,
      kind: volume.kind,
      root: volume.root,
      list: async () => ({ entries: [big, { ...big, name: '../up' }, big], cut: true }),
      look: (entry) => volume.look(entry),
      bytes: {
        size: volume.bytes.size,
        read: async (offset, length) => {
          if (length > 4096) throw error;
          return volume.bytes.read(offset, length);
        },
      },
    });
    const entries = await archive(failing(new VolumeError('beyond the volume')), volume.root);
    expect(Object.keys(entries)).toEqual(['big.bin', '.._up', 'big.bin (2)', 'NOT READ.txt']);
    expect(entries['NOT READ.txt']![2]).toBe(
      hash(
        '/: only the first 3 entries are read\n' +
          ['big.bin', '.._up', 'big.bin (2)'].map((name) => `${name}: cut: beyond the volume\n`).join(''),
      ),
    );
    await expect(archive(failing(new Error('the source is away')), volume.root)).rejects.toThrow('the source is away');
  });

  test('is found by a path with links on its way', async () => {
    const at = async (path: string): Promise<string> => {
      const result = await resolvePath(volume, path);
      return 'missing' in result ? result.missing : result.entries.map(({ name }) => name).join('/');
    };
    expect(await at('/docs/far/note.md')).toBe('docs/deeper/note.md');
    expect(await at('/docs/up/./docs/../LICENCE.TXT')).toBe('licence.txt');
    expect(await at('/short link')).toBe('short link');
    expect(await at('/docs/other/x')).toBe('there is no “other” in /docs');
    expect(await at('/empty/x')).toBe('/empty is not a directory');
    expect(await at('/docs/loop/x')).toMatch(/leads to itself/);
    expect(await at('/')).toBe('');
  });
});
