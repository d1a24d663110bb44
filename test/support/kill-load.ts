/** The load of a device that is killed. Numbers alone determine it, so that two processes derive the same load. */

import { seededRandom } from '../../src/testing/random.ts';

const BLOCK_BYTES = 4096;
export const SECTOR_BYTES = 512;

/** The argument of the killed process, as JSON. */
export interface LoadOrder {
  readonly source: string;
  readonly target: string;
  readonly size: number;
  readonly users: number;
  readonly seed: number;
  readonly life: number;
  readonly rateBytesPerSecond: number;
  /** Whether the file system may fail while the process runs. A user ends then, unless only the disk is full. */
  readonly mayFail?: boolean;
  /** Plants a bug: files are not synced. */
  readonly syncsNothing?: boolean;
}

export type LoadOperation =
  /** `bytes` are the new content from `offset` on: zeros for `writeZeroes` and `discard`. */
  | {
      readonly kind: 'write' | 'writeZeroes' | 'discard';
      readonly offset: number;
      readonly bytes: Uint8Array;
      readonly fua: boolean;
    }
  | { readonly kind: 'read'; readonly offset: number; readonly length: number }
  | { readonly kind: 'flush' | 'checkpoint' };

/** Returns the bytes that only `user` changes. Regions end within blocks, so that users share blocks but no sector. */
function regionOf({ size, users }: Pick<LoadOrder, 'size' | 'users'>, user: number): { start: number; end: number } {
  const boundary = (index: number): number => Math.floor((size / users / SECTOR_BYTES) * index) * SECTOR_BYTES;
  return { start: boundary(user), end: user + 1 === users ? size : boundary(user + 1) };
}

/** Whether the user writes whole sectors, as users of a disk do. The last user writes any bytes. */
export function writesSectors({ users }: Pick<LoadOrder, 'users'>, user: number): boolean {
  return user + 1 < users;
}

/** Returns operation number `index` of `user` in this life. */
export function loadOperation(order: LoadOrder, user: number, index: number): LoadOperation {
  const { start, end } = regionOf(order, user);
  const random = seededRandom(
    Math.imul(order.seed, 0x9e3779b1) ^ Math.imul(order.life, 0x85ebca6b) ^ Math.imul(user, 0xc2b2ae35) ^ index,
  );
  const place = (longest: number): { offset: number; length: number } => {
    const unit = random.oneIn(2) ? BLOCK_BYTES : writesSectors(order, user) ? SECTOR_BYTES : 1;
    const first = Math.ceil(start / unit);
    const count = Math.floor(end / unit) - first;
    const length = 1 + random.below(Math.min(count, Math.ceil(longest / unit)));
    return { offset: (first + random.below(count - length + 1)) * unit, length: length * unit };
  };
  const choice = random.below(100);
  if (choice < 70) {
    const { offset, length } = place(random.oneIn(8) ? 65_536 : 6000);
    return { kind: 'write', offset, bytes: random.fill(new Uint8Array(length)), fua: random.oneIn(12) };
  }
  if (choice < 76) {
    const { offset, length } = place(20_000);
    return { kind: 'writeZeroes', offset, bytes: new Uint8Array(length), fua: false };
  }
  if (choice < 82) {
    const { offset, length } = place(20_000);
    const first = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES;
    const behind =
      offset + length === order.size ? order.size : Math.floor((offset + length) / BLOCK_BYTES) * BLOCK_BYTES;
    return { kind: 'discard', offset: first, bytes: new Uint8Array(Math.max(0, behind - first)), fua: false };
  }
  if (choice < 92) return { kind: 'read', ...place(30_000) };
  return { kind: choice < 97 ? 'flush' : 'checkpoint' };
}
