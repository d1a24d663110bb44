/** Kept inputs: one compressed file for each target. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import { Fields, joined, u32 } from './target.ts';

const folder = 'test/fixtures/fuzz';

function pathOf(target: string): string {
  return `${folder}/${target}.br`;
}

/** Returns the kept inputs of a target. */
export function keptInputs(target: string): Uint8Array[] {
  const path = pathOf(target);
  if (!existsSync(path)) return [];
  const fields = new Fields(new Uint8Array(brotliDecompressSync(readFileSync(path))));
  const inputs: Uint8Array[] = [];
  while (!fields.isAtEnd) inputs.push(fields.bytes(fields.u32()));
  return inputs;
}

/** Keeps these inputs, in the place of those before. Returns the length of the file. */
export function keepInputs(target: string, inputs: readonly Uint8Array[]): number {
  const bytes = joined(...inputs.flatMap((input) => [u32(input.length), input]));
  const params = { [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  const packed = brotliCompressSync(bytes, { params });
  writeFileSync(pathOf(target), packed);
  return packed.length;
}
