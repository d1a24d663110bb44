/** How a bandwidth is divided, over members that are only told of. */

import { expect, test } from 'vitest';
import { GroupView, type SeenMember, SILENT_MS } from '../../src/cli/rate-share.ts';

function member(name: string, beat = '1', more: Partial<SeenMember> = {}): SeenMember {
  return { name, beat, mayBeAlive: true, ...more };
}

test('a member by itself has all', () => {
  expect(new GroupView('a').look([member('a')], 1000, 0)).toEqual({ share: 1000, members: 1, gone: [] });
});

test('members have equal parts of the smallest total that any of them was told', () => {
  const view = new GroupView('a');
  const seen = [member('a'), member('b', '1', { total: 900 }), member('c', '1', { total: 2000 }), member('d')];
  expect(view.look(seen, 1000, 0)).toEqual({ share: 225, members: 4, gone: [] });
  expect(view.look(seen, 400, 0)).toEqual({ share: 100, members: 4, gone: [] });
  expect(view.look(seen, undefined, 0)).toEqual({ share: 225, members: 4, gone: [] });
});

test('where nobody was told a total there is no limit', () => {
  expect(new GroupView('a').look([member('b')], undefined, 0)).toEqual({ share: undefined, members: 2, gone: [] });
});

test('every member has a byte a second at least', () => {
  expect(new GroupView('a').look([member('b'), member('c')], 1, 0).share).toBe(1);
});

test('the share of a dead member comes back at once', () => {
  const view = new GroupView('a');
  expect(view.look([member('b')], 1000, 0).share).toBe(500);
  expect(view.look([member('b', '2', { mayBeAlive: false })], 1000, 1000)).toEqual({
    share: 1000,
    members: 1,
    gone: ['b'],
  });
});

test('the share of a member that is silent comes back after a while, and is given again when it speaks', () => {
  const view = new GroupView('a');
  const at = (beat: string, nowMs: number) => view.look([member('b', beat)], 1000, nowMs);
  expect(at('1', 0).share).toBe(500);
  expect(at('2', 1000).share).toBe(500);
  expect(at('2', 1000 + SILENT_MS - 1)).toMatchObject({ share: 500, gone: [] });
  expect(at('2', 1000 + SILENT_MS)).toEqual({ share: 1000, members: 1, gone: ['b'] });
  expect(at('3', 20_000)).toEqual({ share: 500, members: 2, gone: [] });
});

test('a member that was already silent when it was first seen is given up as long afterwards', () => {
  const view = new GroupView('a');
  view.look([], 1000, 50_000);
  expect(view.look([member('old', '77')], 1000, 60_000).members).toBe(2);
  expect(view.look([member('old', '77')], 1000, 60_000 + SILENT_MS).gone).toEqual(['old']);
});

test('a member that left and came back under its name begins anew', () => {
  const view = new GroupView('a');
  view.look([member('b')], 1000, 0);
  view.look([], 1000, 1000);
  expect(view.look([member('b')], 1000, SILENT_MS + 1)).toMatchObject({ members: 2, gone: [] });
});
