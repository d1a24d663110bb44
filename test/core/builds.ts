/** The builds of the wasm core; every test of the core runs against each. */
import { readFileSync } from 'node:fs';
import { Core } from '../../src/wasm/core.ts';

export interface Build {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  create(options?: { memoryLimit?: number }): Core;
}

/** `debug` has assertions and checks; `release` is shipped. `node scripts/build-wasm.mjs` makes both. */
export const builds: readonly Build[] = ['debug', 'release'].map((name) => {
  const bytes = new Uint8Array(readFileSync(new URL(`../../build/${name}/core.wasm`, import.meta.url)));
  return { name, bytes, create: (options) => Core.create(bytes, options) };
});
