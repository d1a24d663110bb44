/** How many streams a copy begins with, after others from the same server. */

import { expect, test } from 'vitest';
import { type StreamUser, shareStreams } from '../../src/device/known-streams.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import type { InlineSource } from '../../src/sources/source.ts';

const from = (place: string | undefined) => ({ source: { ...bytesSource(new Uint8Array(1)), place } as InlineSource });

/** A copy that has one stream by itself, and has found that `count` are worth it. Returns with how many it began. */
function copyFrom(
  place: string | undefined,
  count: number,
  options: { concurrency?: number } = {},
  rate?: number,
): number {
  const user: StreamUser = { stretchCount: 1, options, limiter: { rate } };
  shareStreams(user, from(place));
  const first = user.stretchCount;
  user.stretchCount = count;
  return first;
}

test('a copy begins with as many streams as the last one has', () => {
  expect(copyFrom('http://one', 8)).toBe(1);
  expect(copyFrom('http://one', 4)).toBe(8);
  expect(copyFrom('http://one', 4)).toBe(4);
  expect(copyFrom('http://other', 4)).toBe(1);
});

test('a copy whose source comes again keeps what it has found', () => {
  const user: StreamUser = { stretchCount: 1, options: {}, limiter: { rate: undefined } };
  shareStreams(user, from('http://two'));
  user.stretchCount = 4;
  expect(copyFrom('http://two', 8)).toBe(4);
  shareStreams(user, from('http://two'));
  expect(user.stretchCount).toBe(4);
});

test('what the user has decided is neither changed nor shared', () => {
  copyFrom('http://three', 8);
  expect(copyFrom('http://three', 3, { concurrency: 1 })).toBe(1);
  expect(copyFrom('http://three', 3, {}, 1e6)).toBe(1);
  expect(copyFrom('http://three', 8)).toBe(8);
});

test('sources without a server share nothing', () => {
  copyFrom(undefined, 8);
  expect(copyFrom(undefined, 8)).toBe(1);
});

test('a server is forgotten after 256 others', () => {
  for (let server = 0; server <= 256; server++) copyFrom(`http://${server}`, 8);
  expect(copyFrom('http://1', 8)).toBe(8);
  expect(copyFrom('http://0', 8)).toBe(1);
});
