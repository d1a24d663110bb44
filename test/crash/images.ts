/** The images of the devices under test: random bytes, and states of format 1 that datto/copyondemand wrote. */

import { readdirSync, readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { SLICE_BLOCKS } from '../../src/core/layout.ts';
import { CrashingFileSystem, seededRandom } from '../../src/testing/index.ts';
import type { Image, Window } from './device-story.ts';

const BLOCK = 4096;
const folder = new URL('test/fixtures/golden/', pathToFileURL(`${process.cwd()}/`));

/** Makes an image of nonzero bytes. Every fourth block is all zeros. The first `windowBytes` bytes are in use. */
export function randomImage(size: number, windowBytes: number = size): Image {
  const bytes = seededRandom(size)
    .fill(new Uint8Array(size))
    .map((byte) => byte | 1);
  for (let at = 3 * BLOCK; at + BLOCK <= size; at += 4 * BLOCK) bytes.fill(0, at, at + BLOCK);
  return {
    target: 'disk',
    identity: 'the source',
    read: (into, offset) => into.set(bytes.subarray(offset, offset + into.length)),
    windows: [{ offset: 0, content: bytes.subarray(0, windowBytes) }],
  };
}

interface Expected {
  readonly deviceSize: number;
  readonly synced: readonly [first: number, last: number][];
  readonly dirty: readonly { readonly block: number; readonly ranges: readonly [offset: number, length: number][] }[];
}

export const goldenStates: readonly string[] = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
  .sort();

/** A state of format 1 with a target of zeros and a source without zeros. */
export interface GoldenState {
  readonly size: number;
  readonly image: Image;
  /** What the state says: inclusive runs of synced blocks, and the parts of other blocks. */
  readonly expected: Pick<Expected, 'synced' | 'dirty'>;
  /** The durable files. */
  readonly initial: CrashingFileSystem;
}

function sourceByte(offset: number): number {
  return ((offset % 251) ^ (Math.floor(offset / BLOCK) % 253)) | 1;
}

function readSource(into: Uint8Array, offset: number): void {
  for (let index = 0; index < into.length; index++) into[index] = sourceByte(offset + index);
}

/** Returns the blocks most at risk: the ends of synced runs, some dirty blocks, the first and the last block. */
function interestingBlocks({ deviceSize, synced, dirty }: Expected): Set<number> {
  const last = Math.ceil(deviceSize / BLOCK) - 1;
  const runs = [...synced.slice(0, 2), ...synced.slice(-2)].flatMap(([first, end]) => [first - 1, first, end, end + 1]);
  const parts = [...dirty.slice(0, 2), ...dirty.slice(-2)].map(({ block }) => block);
  return new Set([0, last, ...runs, ...parts].filter((block) => block >= 0 && block <= last));
}

function windowsOf(expected: Expected): Window[] {
  const blocks = [...interestingBlocks(expected)].sort((a, b) => a - b);
  return blocks.map((block) => {
    const offset = block * BLOCK;
    const content = new Uint8Array(Math.min(BLOCK, expected.deviceSize - offset));
    if (expected.synced.some(([first, last]) => first <= block && block <= last)) return { offset, content };
    readSource(content, offset);
    for (const [start, length] of expected.dirty.find((part) => part.block === block)?.ranges ?? [])
      content.fill(0, start, start + length);
    return { offset, content };
  });
}

/** Bytes of the device of {@link slicedImage}: three slices of the maps, of which the last has three blocks. */
export const SLICED_SIZE: number = (2 * SLICE_BLOCKS + 2) * BLOCK + 700;

/** Makes an image whose users stay at the ends of the slices. */
export function slicedImage(): Image {
  const windows = [
    [SLICE_BLOCKS - 2, SLICE_BLOCKS + 2],
    [2 * SLICE_BLOCKS - 2, 2 * SLICE_BLOCKS + 3],
  ].map(([first, end]): Window => {
    const offset = first! * BLOCK;
    const content = new Uint8Array(Math.min(SLICED_SIZE, end! * BLOCK) - offset);
    readSource(content, offset);
    return { offset, content };
  });
  return { target: 'disk', identity: 'the source', read: readSource, windows };
}

export async function goldenState(name: string): Promise<GoldenState> {
  const url = new URL(`${name}/`, folder);
  const expected = JSON.parse(readFileSync(new URL('expected.json', url), 'utf8')) as Expected;
  const initial = new CrashingFileSystem();
  const put = async (file: string, bytes: Uint8Array, size: number): Promise<void> => {
    const made = await initial.open(file, { create: true });
    await made.write(bytes, 0);
    await made.truncate(size);
    await made.sync();
    await made.close();
  };
  for (const file of readdirSync(url)) {
    if (!file.startsWith('disk.raw')) continue;
    const bytes = new Uint8Array(readFileSync(new URL(file, url)));
    await put(file, bytes, bytes.length);
  }
  await put('disk.raw', new Uint8Array(), expected.deviceSize);
  return {
    size: expected.deviceSize,
    expected,
    initial,
    image: { target: 'disk.raw', identity: undefined, read: readSource, windows: windowsOf(expected) },
  };
}
