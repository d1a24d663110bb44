/** The planted bugs and the small constants fit the sources. planted-bugs.long.test.ts hunts the bugs. */

import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { type Patch, patched } from './patched-build.ts';
import { PLANTED_BUGS } from './planted-bugs.ts';
import { SMALL_CONSTANTS } from './small-constants.ts';

/** Applies patches to the sources in memory. */
function apply(patches: readonly Patch[]): void {
  for (const file of new Set(patches.map((patch) => patch.file))) {
    const here = patches.filter((patch) => patch.file === file);
    patched(readFileSync(file, 'utf8'), here);
  }
}

it.each(PLANTED_BUGS.map(({ name, patches }) => [name, patches] as const))('%s fits the sources', (_name, patches) => {
  apply([...SMALL_CONSTANTS, ...patches]);
});

it('a patch whose line does not exist is an error', () => {
  const patch = { file: 'src/log/checkpointer.ts', find: 'missing line', replace: '' };
  expect(() => apply([patch])).toThrow('src/log/checkpointer.ts has 0 times, not once: missing line');
});
