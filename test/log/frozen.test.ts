/** States of format 2 as they were once written are read for ever (test/fixtures/format2/README.md). */

import { readdirSync, readFileSync } from 'node:fs';
import { Volume } from 'memfs';
import { describe, expect, it } from 'vitest';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { type Inspection, inspectMetadata } from '../../src/log/inspect.ts';

const folder = new URL('../fixtures/format2/', import.meta.url);

type Reading = Omit<Inspection, 'target' | 'size' | 'blockSize' | 'totalBlocks'>;

interface Expected extends Pick<Inspection, 'size' | 'blockSize' | 'totalBlocks'> {
  readonly note: string;
  readonly bootId?: string;
  readonly sameBoot?: Reading;
  readonly otherBoot: Reading;
}

function load(state: string): { volume: Volume; expected: Expected } {
  const volume = new Volume();
  const url = new URL(`${state}/`, folder);
  for (const name of readdirSync(url)) {
    if (!name.startsWith('disk.raw')) continue;
    const bytes = readFileSync(new URL(name, url));
    volume.writeFileSync(`/${name}`, bytes);
    if (name.includes('.wil')) volume.truncateSync(`/${name}`, Number(bytes.readBigUInt64LE(56)));
  }
  return { volume, expected: JSON.parse(readFileSync(new URL('expected.json', url), 'utf8')) as Expected };
}

const states = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name);

describe.each(states)('the frozen state %s', (state) => {
  const { volume, expected } = load(state);
  const { size, blockSize, totalBlocks, bootId, sameBoot, otherBoot } = expected;

  it('is read in another boot up to what was flushed', async () => {
    for (const other of ['another boot', undefined]) {
      const found = await inspectMetadata(memfsFileSystem(volume, { bootId: other }), 'disk.raw');
      expect(found).toEqual({ target: 'disk.raw', size, blockSize, totalBlocks, ...otherBoot });
    }
  });

  it.runIf(sameBoot !== undefined)('is read in its own boot with all that was acknowledged', async () => {
    const found = await inspectMetadata(memfsFileSystem(volume, { bootId }), 'disk.raw');
    expect(found).toEqual({ target: 'disk.raw', size, blockSize, totalBlocks, ...sameBoot });
  });
});
