/** Helpers of the conformance tests. */

import type { File, FileSystem } from '../../fs/file-system.ts';
import { seededRandom } from '../random.ts';

export type Test = readonly [name: string, test: (fileSystem: FileSystem) => Promise<void>];

export const MIB: number = 1 << 20;

/** Opens or creates a file, uses it and closes it. */
export async function withFile(
  fileSystem: FileSystem,
  name: string,
  use: (file: File) => Promise<unknown>,
): Promise<void> {
  const file = await fileSystem.open(name, { create: true });
  try {
    await use(file);
  } finally {
    await file.close();
  }
}

/** Returns all bytes of a file. */
export async function contentOf(file: File): Promise<Uint8Array> {
  const content = new Uint8Array(await file.size());
  await file.read(content, 0);
  return content;
}

/** Returns bytes that differ from the same bytes shifted, and from those of another seed. */
export function pattern(length: number, seed = 0): Uint8Array {
  return seededRandom(1000 + seed).fill(new Uint8Array(length));
}
