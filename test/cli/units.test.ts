import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/cli/failure.ts';
import {
  counted,
  formatBytes,
  formatDuration,
  formatPercent,
  formatRate,
  parseGroupName,
  parseInteger,
  parseRate,
  parseSha256,
  parseSize,
} from '../../src/cli/units.ts';

describe('a size', () => {
  test.each([
    ['1', 1],
    ['4096', 4096],
    ['1k', 1024],
    ['1K', 1024],
    ['1KiB', 1024],
    ['3M', 3 * 2 ** 20],
    ['1.5G', 1.5 * 2 ** 30],
    ['2 T', 2 * 2 ** 40],
    ['0.3k', 307],
    ['8191T', 8191 * 2 ** 40],
    ['1 byte', 1],
    ['512 bytes', 512],
    ['1.50 PiB', 1.5 * 2 ** 50],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each([
    '',
    ' ',
    'k',
    '-1',
    '0',
    '0.0001',
    '1e3',
    '0x10',
    '1.',
    '.5',
    '1..5',
    '1,5',
    '1MB',
    '1P',
    '1mbit',
    '8192T',
    '1k1',
    'NaN',
    'Infinity',
    '１',
  ])('refuses %j', (text) => {
    expect(() => parseSize(text)).toThrow(UsageError);
  });
});

describe('a rate', () => {
  test.each([
    ['1000', 1000],
    ['20M', 20 * 2 ** 20],
    ['34.5 MiB/s', 34.5 * 2 ** 20],
    ['250mbit', 31_250_000],
    ['250Mbit', 31_250_000],
    ['8kbit', 1000],
    ['1gbit', 125_000_000],
    ['0.5mbit', 62_500],
  ])('%s is %d bytes per second', (text, rate) => {
    expect(parseRate(text)).toBe(rate);
  });

  test.each(['', 'fast', 'mbit', '-1M', '0mbit', '1bit', '10MB/s', '250 m bit'])('refuses %j', (text) => {
    expect(() => parseRate(text)).toThrow(UsageError);
  });
});

test('a whole number has decimal digits and is within its bounds', () => {
  const bounds = { min: 1, max: 64 };
  expect(parseInteger('64', bounds)).toBe(64);
  for (const text of ['0', '65', '1.0', '1e1', '-1', '', ' 1'])
    expect(() => parseInteger(text, bounds)).toThrow('from 1 to 64');
});

test('a SHA-256 digest is 64 hexadecimal digits of either case', () => {
  expect(parseSha256('AB'.repeat(32))).toBe('ab'.repeat(32));
  for (const text of ['', 'ab', 'ab'.repeat(33), 'xy'.repeat(32)]) expect(() => parseSha256(text)).toThrow(UsageError);
});

test.each([
  [0, '0 bytes'],
  [1, '1 byte'],
  [1023, '1023 bytes'],
  [1024, '1 KiB'],
  [1536, '1.50 KiB'],
  [123.4 * 2 ** 20, '123 MiB'],
  [2 ** 30, '1 GiB'],
  [16.5 * 2 ** 40, '16.5 TiB'],
])('%d bytes are shown as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test('a percentage is 100 only if the copy is complete', () => {
  expect(formatPercent(9999, 10_000)).toBe('99.9 %');
  expect(formatPercent(10_000, 10_000)).toBe('100 %');
  expect(formatPercent(0, 0)).toBe('100 %');
});

test('rates, durations and counts are formatted for people', () => {
  expect(formatRate(31_250_000.4)).toBe('29.8 MiB/s');
  expect([0, 6.2, 65, 3600, 90_061].map(formatDuration)).toEqual(['0:00', '0:07', '1:05', '1:00:00', '25:01:01']);
  expect([0.0001, 0.0123, 0.999, 0.9991].map(formatDuration)).toEqual(['1 ms', '13 ms', '999 ms', '0:01']);
  expect([counted(1, 'block'), counted(1_234_567, 'block')]).toEqual(['1 block', '1,234,567 blocks']);
});

test('the name of a group must be valid as the name of a folder', () => {
  for (const text of ['a', 'nightly-2', 'Host_1.b', 'x'.repeat(64)]) expect(parseGroupName(text)).toBe(text);
  for (const text of ['', '.', '..', '../a', 'a/b', 'a b', '-a', 'x'.repeat(65), 'ä', 'a\n'])
    expect(() => parseGroupName(text)).toThrow(UsageError);
});

test('sizes and rates are read as they are printed, but for the rounding', () => {
  const isClose = (found: number, bytes: number) => Math.abs(found - bytes) <= bytes * 0.005;
  // 8 PiB, as values above this are printed, is more than a number can hold.
  const bytes = fc.bigInt(1n, BigInt(7.99 * 2 ** 50)).map(Number);
  const edges = Array.from({ length: 52 }, (_, power) => 2 ** power).flatMap((size) => [size - 1, size, size + 1]);
  fc.assert(
    fc.property(fc.oneof(bytes, fc.constantFrom(...edges.filter((edge) => edge > 0))), (bytes) => {
      expect(parseSize(formatBytes(bytes))).toSatisfy((found: number) => isClose(found, bytes));
      expect(parseRate(formatRate(bytes))).toBe(parseSize(formatBytes(bytes)));
    }),
    { numRuns: 2000 },
  );
});
