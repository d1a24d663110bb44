import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Volume } from 'memfs';
import { afterAll } from 'vitest';
import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { freezeStates } from './freeze.ts';
import { type Frozen, frozenSuite } from './frozen-suite.ts';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));

// To make the states again while the format is not released.
if (process.env['COD_FREEZE'] !== undefined) await freezeStates(new URL('../fixtures/format2/', import.meta.url));

async function statesOf(format: Frozen['format']): Promise<Frozen[]> {
  const names = readdirSync(join(fixtures, format), { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? entry.name : [],
  );
  return Promise.all(
    names.map(async (name): Promise<Frozen> => {
      const folder = join(fixtures, format, name);
      return {
        format,
        name,
        expected: JSON.parse(await readFile(join(folder, 'expected.json'), 'utf8')) as Frozen['expected'],
        files: readdirSync(folder)
          .filter((file) => file.startsWith('disk.raw'))
          .map((file) => ({ name: file, bytes: async () => new Uint8Array(await readFile(join(folder, file))) })),
      };
    }),
  );
}

const states = [...(await statesOf('format2')), ...(await statesOf('golden'))];

frozenSuite('memory', states, async () => {
  const volume = new Volume();
  return { inBoot: (bootId) => memfsFileSystem(volume, { bootId }) };
});

const base = mkdtempSync(join(tmpdir(), 'cod-frozen-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));

frozenSuite("Node's files", states, async () => {
  const directory = mkdtempSync(join(base, 'd-'));
  return {
    inBoot: (bootId) => {
      const { open, remove } = nodeFileSystem(directory);
      return { open, remove, ...(bootId === undefined ? {} : { bootId }) };
    },
  };
});
