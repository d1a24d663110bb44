/** The code blocks of README.md. */

import { codeBlocks, readDocument } from './documents.ts';

/** Language and name of each block, in the order of the document. */
export const README_BLOCKS: readonly string[] = [
  'sh install',
  'sh boot',
  'sh command',
  'js main.mjs',
  'js page.js',
  'js crash.mjs',
  'sh checkout',
];

/** The URL that stands for the reader's image. A test replaces it by a server on loopback. */
export const README_URL = 'https://example.org/image.raw';
/** As {@link README_URL}, for a qcow2 image. */
export const README_QCOW2_URL = 'https://example.org/cloudimg-amd64.img';

const blocks = codeBlocks(readDocument('README.md'));

/** Returns the code of the block `name`. */
export function readmeBlock(name: string): string {
  const found = blocks.filter((block) => block.name === name);
  if (found.length !== 1) throw new Error(`README.md has ${found.length} blocks ${name} instead of one`);
  return found[0]!.code;
}
