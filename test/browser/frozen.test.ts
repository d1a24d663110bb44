/** The frozen states over OPFS in Chromium: the same tests as over memory and over Node's files. */

import { afterEach } from 'vitest';
import { type Frozen, frozenSuite } from '../log/frozen-suite.ts';
import { freshDirectory } from './directories.ts';
import { type RemoteFiles, remoteFiles } from './remote-files.ts';

const urls = (import.meta as unknown as { glob(pattern: string, options: object): Record<string, string> }).glob(
  '../fixtures/{format2,golden}/*/{disk.raw*,expected.json}',
  { query: '?url', import: 'default', eager: true },
);

/** `../fixtures/FORMAT/NAME/FILE`, by folder. */
const folders = new Map<string, Map<string, string>>();
for (const [path, url] of Object.entries(urls)) {
  const at = path.lastIndexOf('/');
  const folder = path.slice(0, at);
  folders.set(folder, (folders.get(folder) ?? new Map()).set(path.slice(at + 1), url));
}

const states = await Promise.all(
  [...folders].map(async ([folder, files]): Promise<Frozen> => {
    const [format, name] = folder.split('/').slice(-2) as [Frozen['format'], string];
    return {
      format,
      name,
      expected: (await (await fetch(files.get('expected.json')!)).json()) as Frozen['expected'],
      files: [...files]
        .filter(([file]) => file !== 'expected.json')
        .map(([file, url]) => ({
          name: file,
          bytes: async () => new Uint8Array(await (await fetch(url)).arrayBuffer()),
        })),
    };
  }),
);

const running: RemoteFiles[] = [];

afterEach(() => {
  for (const files of running.splice(0)) files.terminate();
});

frozenSuite('OPFS', states, async () => {
  const directory = await freshDirectory();
  return {
    inBoot: async (bootId) => {
      const files = await remoteFiles({ directory, bootId });
      running.push(files);
      return files;
    },
  };
});
