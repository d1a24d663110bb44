/** The division of a bandwidth among members, which are only simulated. */

import { expect, test } from 'vitest';
import { GroupView, type SeenMember, SILENT_MS } from '../../src/cli/rate-share.ts';

function member(name: string, beat = '1', more: Partial<SeenMember> = {}): SeenMember {
  return { name, beat, mayBeAlive: true, ...more };
}

test('a single member has the whole rate', () => {
  expect(new GroupView('a').look([member('a')], 1000, 0)).toEqual({ share: 1000, members: 1, gone: [] });
});

test('members have equal shares of the smallest total of any member', () => {
  const view = new GroupView('a');
  const seen = [member('a'), member('b', '1', { total: 900 }), member('c', '1', { total: 2000 }), member('d')];
  expect(view.look(seen, 1000, 0)).toEqual({ share: 225, members: 4, gone: [] });
  expect(view.look(seen, 400, 0)).toEqual({ share: 100, members: 4, gone: [] });
  expect(view.look(seen, undefined, 0)).toEqual({ share: 225, members: 4, gone: [] });
});

test('without any total there is no limit', () => {
  expect(new GroupView('a').look([member('b')], undefined, 0)).toEqual({ share: undefined, members: 2, gone: [] });
});

test('every member has at least a byte per second', () => {
  expect(new GroupView('a').look([member('b'), member('c')], 1, 0).share).toBe(1);
});

test('the share of a dead member is free immediately', () => {
  const view = new GroupView('a');
  expect(view.look([member('b')], 1000, 0).share).toBe(500);
  expect(view.look([member('b', '2', { mayBeAlive: false })], 1000, 1000)).toEqual({
    share: 1000,
    members: 1,
    gone: ['b'],
  });
});

test('the share of a silent member is free after a while, until the member reports again', () => {
  const view = new GroupView('a');
  const at = (beat: string, nowMs: number) => view.look([member('b', beat)], 1000, nowMs);
  expect(at('1', 0).share).toBe(500);
  expect(at('2', 1000).share).toBe(500);
  expect(at('2', 1000 + SILENT_MS - 1)).toMatchObject({ share: 500, gone: [] });
  expect(at('2', 1000 + SILENT_MS)).toEqual({ share: 1000, members: 1, gone: ['b'] });
  expect(at('3', 20_000)).toEqual({ share: 500, members: 2, gone: [] });
});

test('a member that never reported since it was first seen is removed after the same time', () => {
  const view = new GroupView('a');
  view.look([], 1000, 50_000);
  expect(view.look([member('old', '77')], 1000, 60_000).members).toBe(2);
  expect(view.look([member('old', '77')], 1000, 60_000 + SILENT_MS).gone).toEqual(['old']);
});

test('a member that left and returned under its name counts as new', () => {
  const view = new GroupView('a');
  view.look([member('b')], 1000, 0);
  view.look([], 1000, 1000);
  expect(view.look([member('b')], 1000, SILENT_MS + 1)).toMatchObject({ members: 2, gone: [] });
});
