import { expect, test } from 'vitest';
import { drawScreen, mapSize, Samples, stateInWords } from '../../src/cli/status-screen.ts';
import { type CopyStatus, UNKNOWN } from '../../src/control/status.ts';

const NOW = Date.parse('2026-01-01T12:00:00Z');
const SCREEN = { columns: 80, rows: 24, colour: false, now: NOW };

function statusOf(changes: Partial<CopyStatus> = {}): CopyStatus {
  const counts = { size: 2 ** 20, blockSize: 4096, totalBlocks: 256, syncedBlocks: 64, dirtyBlocks: 0 };
  const since = '2026-01-01T11:00:00.000Z';
  return { ...UNKNOWN, target: 'disk', pid: 7, state: 'hydrating', ...counts, since, retries: 0, ...changes };
}

const FAILURE = { code: 'COD_SOURCE_IO', message: 'GET http://host/: 503', time: '2026-01-01T11:59:50.000Z' };

test.each<[string, Partial<CopyStatus>]>([
  ['copying', {}],
  ['is being opened', { state: 'opening' }],
  ['paused, until `copyondemand resume`', { state: 'paused' }],
  [
    'copying, with failures: COD_SOURCE_IO, next attempt in 12 s',
    { lastError: { ...FAILURE, recoveredAt: null }, nextAttemptAt: '2026-01-01T12:00:11.500Z' },
  ],
  ['waiting for the source', { state: 'waiting' }],
  [
    'waiting for the source: COD_SOURCE_IO, next attempt in 12 s',
    { state: 'waiting', lastError: { ...FAILURE, recoveredAt: null }, nextAttemptAt: '2026-01-01T12:00:11.500Z' },
  ],
  [
    'waiting for room on the disk: COD_NO_SPACE, trying again',
    {
      state: 'waiting',
      lastError: { ...FAILURE, code: 'COD_NO_SPACE', recoveredAt: null },
      nextAttemptAt: '2026-01-01T11:59:59.000Z',
    },
  ],
  ['no background copy, only what is read is copied', { state: 'idle' }],
  ['complete', { state: 'hydrated' }],
  ['failed: start the process again, which recovers the copy', { state: 'poisoned' }],
  ['no process owns it', { pid: null, state: 'closed' }],
])('%s', (words, changes) => {
  expect(stateInWords(statusOf(changes), NOW)).toBe(words);
});

test('the screen tells what the owner does', () => {
  const status = statusOf({
    bytesPerSecond: 2 ** 17,
    rateBytesPerSecond: 2 ** 18,
    rateFile: '/etc/rate',
    secondsLeft: 6,
    source: 'http://host/',
    metadata: '/var/disk',
    metadataBytes: 1024,
    dirtyBlocks: 1,
    clients: 2,
    retries: 3,
    lastError: { ...FAILURE, recoveredAt: '2026-01-01T11:59:55.000Z' },
    map: `${'#'.repeat(40)}+!${'.'.repeat(38)}`,
  });
  const activity = {
    demandBytes: 4096,
    reads: { perSecond: 1234, ms: 0.25 },
    writes: { perSecond: 0.4, ms: 2 },
    flushes: { perSecond: 0, ms: 0 },
  };
  expect(drawScreen(status, activity, SCREEN)).toEqual([
    'disk: copying',
    '',
    `copied    ${'█'.repeat(7)}${'░'.repeat(23)} 25.0 %, 256 KiB of 1 MiB`,
    'copy      128 KiB/s, at most 256 KiB/s (/etc/rate), 0:06 left',
    'users     1,234 reads/s of 0.3 ms, 0.4 writes/s of 2.0 ms, 0 flushes/s',
    'demand    4 KiB/s from the source',
    'clients   2',
    'source    http://host/',
    'owner     process 7, since 1:00:00 ago',
    'metadata  /var/disk.*, 1 KiB written, 1 block written in part',
    'errors    3 attempts failed, the last one 10 s ago, recovered 5 s ago',
    '          COD_SOURCE_IO: GET http://host/: 503',
    '',
    `  ${'█'.repeat(40)}▒▚${'░'.repeat(34)}`,
    '  ░░░░',
    '  █ copied   ▒ partly copied   ▚ partly written, rest not copied   ░ not copied',
    'q leaves',
  ]);
});

test('the screen fits terminals of every size', () => {
  for (let rows = 5; rows <= 60; rows++) {
    for (const columns of [20, 33, 80, 300]) {
      const screen = { ...SCREEN, columns, rows };
      const cells = mapSize(screen);
      expect(cells).toBeGreaterThan(0);
      const lastError = { ...FAILURE, message: 'x'.repeat(1000), recoveredAt: null };
      const drawn = drawScreen(statusOf({ map: '#'.repeat(cells), lastError, retries: 1 }), undefined, {
        ...screen,
        problem: 'y'.repeat(500),
      });
      // The cursor is behind the last line.
      expect(drawn.length).toBeLessThan(rows);
      expect(Math.max(...drawn.map((line) => line.length))).toBeLessThanOrEqual(columns);
      expect(drawn.at(-1)).toBe('q leaves');
      expect(drawn.some((line) => /^ {2}█+$/.test(line))).toBe(true);
    }
  }
});

test('activity is the average of the last seconds, and of one owner', () => {
  const samples = new Samples();
  const calls = (count: number): Partial<CopyStatus> => ({
    reads: { count, totalMs: 2 * count },
    writes: { count: 0, totalMs: 0 },
    flushes: { count, totalMs: 0 },
    demand: { bytes: 4096 * count, requests: count },
  });
  samples.add(0, statusOf(calls(0)));
  expect(samples.activity).toBe(undefined);
  samples.add(1000, statusOf(calls(10)));
  expect(samples.activity).toMatchObject({ demandBytes: 40_960, reads: { perSecond: 10, ms: 2 } });
  for (let second = 2; second <= 20; second++) samples.add(1000 * second, statusOf(calls(10)));
  expect(samples.activity).toMatchObject({ demandBytes: 0, reads: { perSecond: 0, ms: 0 } });
  samples.add(21_000, statusOf({ ...calls(5), pid: 8 }));
  expect(samples.activity).toBe(undefined);
});
