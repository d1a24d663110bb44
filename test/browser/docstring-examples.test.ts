/** The examples in docstrings that need a page or its worker. Their image is that of the test server. */

import { afterEach, beforeAll, describe, expect, inject, test } from 'vitest';
import { removeCopy } from '../../src/browser.ts';
import { type Example, examplesIn } from '../support/docstrings.ts';

declare global {
  interface ImportMeta {
    /** Vite replaces the call by the texts of the files, by path. */
    glob(pattern: string, options: { query: '?raw'; import: 'default'; eager: true }): Record<string, string>;
  }
}

const sources = import.meta.glob('../../src/{browser*,browser/*,fs/opfs*}.ts', {
  query: '?raw',
  import: 'default',
  eager: true,
});
const examples = Object.entries(sources).flatMap(([path, text]) =>
  examplesIn(text).map((example) => ({ name: `${path.replace('../../', '')}: ${titleOf(example)}`, example })),
);
const isForWorker = ({ example }: { readonly example: Example }): boolean => example.code.includes('dedicated worker');

/** The names that an example imports. */
function titleOf({ code }: Example): string {
  return [...code.matchAll(/^import \{ (.*) \}/gm)].map(([, names]) => names).join(', ');
}

/** Returns the URL of a module: the example over the sources, as the server of this page gives them. */
function moduleOf({ code }: Example, end = ''): string {
  const own = code
    .replaceAll(/'copyondemand(\/[a-z-]+)?'/g, (_, entry = '/index') => `'${location.origin}/src${entry}.ts'`)
    .replaceAll('https://example.org/disk.raw', `${inject('serverUrl')}/image`);
  return URL.createObjectURL(new Blob([own, end], { type: 'text/javascript' }));
}

beforeAll(() => {
  // The sources ask for the worker by the name that it has once it is built.
  globalThis.Worker = class extends Worker {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(String(url).replace(/browser-worker\.js.*$/, 'browser-worker.ts'), options);
    }
  };
});

afterEach(() => removeCopy({ target: 'disk.raw' }));

describe('an example runs in a page', () => {
  test.each(examples.filter((each) => !isForWorker(each)))('$name', async ({ example }) => {
    await import(/* @vite-ignore */ moduleOf(example));
  });
});

describe('an example runs in a dedicated worker', () => {
  test.each(examples.filter(isForWorker))('$name', async ({ example }) => {
    const worker = new Worker(moduleOf(example, 'postMessage(undefined);'), { type: 'module' });
    try {
      await new Promise<void>((resolve, reject) => {
        worker.onmessage = () => resolve();
        worker.onerror = ({ message }) => reject(new Error(message));
      });
    } finally {
      worker.terminate();
    }
  });
});

test('the sources of pages and of OPFS have examples', () => {
  expect(examples.filter(isForWorker).length).toBeGreaterThan(0);
  expect(examples.filter((each) => !isForWorker(each)).length).toBeGreaterThan(0);
});
