/** What stderr tells of a copy that fails and continues. */

import { expect, test } from 'vitest';
import { Troubles } from '../../src/cli/troubles.ts';

const FAILED = 'disk: COD_SOURCE_IO: reset; still trying';

/** A report at a time. Returns the lines of stderr and the number of events. */
function rig(isOpening: boolean) {
  const lines: string[] = [];
  let events = 0;
  let nowMs = 0;
  const progress = { note: (line: string) => void lines.push(line) } as ConstructorParameters<
    typeof Troubles
  >[0]['progress'];
  const troubles = new Troubles(
    { target: 'disk', emit: () => void events++, progress },
    { isOpening, now: () => nowMs },
  );
  const fail = (atMs: number, attempt: number, delayMs = 250): void => {
    nowMs = atMs;
    troubles.retry({ code: 'COD_SOURCE_IO', message: 'reset', attempt, delayMs });
  };
  return { troubles, lines, fail, events: () => events };
}

test('the first failure, one in each minute, and the end', () => {
  const { troubles, lines, fail, events } = rig(false);
  for (const [index, atMs] of [0, 30_000, 60_000, 70_000].entries()) fail(atMs, index + 1);
  troubles.recovered();
  expect(lines).toEqual([FAILED, FAILED, 'disk: the copy continues']);
  expect(events()).toBe(5);
});

test('nothing of the few retries of an opening, whose error says why, but of more and of longer ones', () => {
  const { lines, fail, events } = rig(true);
  for (let attempt = 1; attempt <= 4; attempt++) fail(attempt * 1000, attempt);
  expect(lines).toEqual([]);
  expect(events()).toBe(4);
  fail(5000, 5);
  expect(lines).toEqual([FAILED]);
  const slow = rig(true);
  slow.fail(0, 1, 30_000);
  expect(slow.lines).toEqual([FAILED]);
});
