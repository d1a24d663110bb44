/** Every block of code in a document has a name, and a test that runs it or compares it. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { codeBlocks, ownDocuments, readDocument } from '../support/documents.ts';

const root = join(import.meta.dirname, '../..');

/** What is drawn or quoted, not run. */
const PICTURES = new Set(['', 'text', 'mermaid']);

/** The blocks of each document, by the test that has them. */
const TESTS: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  'README.md': {
    'test/support/readme-blocks.ts': ['install', 'boot', 'command', 'main.mjs', 'page.js', 'crash.mjs', 'checkout'],
  },
  'docs/BACKENDS.md': { 'test/documents/own-parts.test.ts': ['backend.mjs'] },
  'docs/BROWSER.md': { 'test/system/readme.long.test.ts': ['esbuild', 'web'] },
  'docs/COMMAND.md': { 'test/documents/readme.test.ts': ['disks'] },
  'docs/FORMAT.md': { 'test/log/format-examples.test.ts': ['disk.bak', 'disk.wil', 'old.bak', 'old.wil'] },
  'docs/LOG.md': { 'test/log/log-document.test.ts': ['use.mjs'] },
  'docs/MANIFEST.md': { 'test/sources/manifest.test.ts': ['image.manifest'] },
  'docs/METRICS.md': { 'test/system/documented-programs.long.test.ts': ['subscribe'] },
  'docs/NBD.md': {
    'test/system/documented-commands.long.test.ts': [
      'state',
      'modified',
      'qemu-map',
      'serve',
      'qemu',
      'nbdfuse',
      'tls',
    ],
    'test/system/documented-programs.long.test.ts': ['exports'],
    'test/system/service.test.ts': ['kubernetes'],
  },
  'docs/OPERATIONS.md': {
    'test/system/documented-commands.long.test.ts': [
      ...['order', 'control', 'groups', 'snapshot', 'increments', 'restore', 'volume', 's3', 'manifest', 'seed'],
      ...['verify', 'nbd-sources'],
    ],
    'test/system/documented-programs.long.test.ts': ['recorder', 'client'],
  },
  'docs/SOURCES.md': { 'test/documents/own-parts.test.ts': ['chunks.mjs'] },
  'model/README.md': { 'test/model/model.long.test.ts': ['model'] },
  'docs/SCALING.md': { 'test/support/rack-cache.ts': ['rack'] },
  'src/testing/README.md': { 'test/testing/readme.test.ts': ['test.mjs', 'my-log.mjs', 'trace.mjs', 'history.mjs'] },
};

/** Blocks that no test can run, and why. */
const UNTESTED: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'docs/COMPARISON.md': {
    source: 'the trials are of programs in certain versions, and were run by hand',
    servers: 'the same',
    kill: 'the same',
  },
  'docs/NBD.md': {
    kernel: 'it loads a module of the kernel',
    libvirt: 'it is a part of a configuration of libvirt, which cannot run in a test',
  },
  'docs/OPERATIONS.md': { scrape: 'it is a part of a configuration of Prometheus' },
  'docs/SCALING.md': {
    simulation: 'test/bench/fleet.test.ts runs the simulation with other options',
    stores: 'it needs AWS and a CDN',
    cache: 'test/fleet/rack.test.ts runs it with other names',
    ceph: 'test/fleet/rbd-target.test.ts and test/system/ceph.long.test.ts run its parts',
    proxy: 'it needs a proxy of Dragonfly; test/system has proxies of ours',
  },
  'docs/TESTING.md': { history: 'it runs a test of this repository' },
  'examples/storage-engine/README.md': { use: 'test/system/adapters.long.test.ts runs the example' },
  'examples/v86/README.md': { use: 'test/system/linux.long.test.ts runs the example' },
};

describe.each(ownDocuments())('%s', (path) => {
  it('has code that is tested', () => {
    const names = codeBlocks(readDocument(path))
      .filter(({ language }) => !PICTURES.has(language))
      .map(({ name }) => name);
    const tested = Object.values(TESTS[path] ?? {}).flat();
    expect(names.sort()).toEqual([...tested, ...Object.keys(UNTESTED[path] ?? {})].sort());
  });
});

it.each(Object.values(TESTS).flatMap((tests) => Object.entries(tests)))('%s has them', (test, names) => {
  const text = readFileSync(join(root, test), 'utf8');
  expect(names.filter((name) => !text.includes(name))).toEqual([]);
});
