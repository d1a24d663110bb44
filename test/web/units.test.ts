import { expect, test } from 'vitest';
import {
  formatBytes,
  formatDate,
  formatDuration,
  formatMilliseconds,
  formatOffset,
  formatShare,
  parseBytes,
  parseOffset,
} from '../../src/web/units.ts';

test('bytes have three digits', () => {
  const found = [0, 1, 1023, 1024, 1536, 10_240, 999_999, 1_048_575, 2 ** 34, 1.5 * 2 ** 40].map(formatBytes);
  expect(found).toEqual([
    '0 bytes',
    '1 byte',
    '1023 bytes',
    '1 KiB',
    '1.5 KiB',
    '10 KiB',
    '977 KiB',
    '1 MiB',
    '16 GiB',
    '1.5 TiB',
  ]);
});

test('a share is 100 % only of a complete copy, and 0 % only of an empty one', () => {
  const found = [
    [0, 9],
    [1, 2 ** 40],
    [1, 3],
    [9999, 10_000],
    [10, 10],
    [0, 0],
  ].map(([part, whole]) => formatShare(part!, whole!));
  expect(found).toEqual(['0 %', '< 0.01 %', '33.3 %', '99.9 %', '100 %', '100 %']);
});

test('times have a short form', () => {
  expect([0.2, 59, 60, 5400, 200_000, Number.POSITIVE_INFINITY].map(formatDuration)).toEqual([
    '1 s',
    '59 s',
    '1 min',
    '2 h',
    '2 days',
    '',
  ]);
  expect([0, 0.04, 9.9, 12.3, 2500].map(formatMilliseconds)).toEqual(['< 1 ms', '0.0 ms', '9.9 ms', '12 ms', '2.5 s']);
});

test('an offset is parsed as people write it', () => {
  const found = ['0x1F0', '1f0', '1f0h', ' 4M ', '1.5 KiB', '2G', '', 'x', '-1', '0x', '99999999999999999999'].map(
    parseOffset,
  );
  expect(found).toEqual([
    0x1f0,
    0x1f0,
    0x1f0,
    2 ** 22,
    1536,
    2 ** 31,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  expect(parseOffset(formatOffset(2 ** 44 + 17))).toBe(2 ** 44 + 17);
});

test('bytes are written as hexadecimal digits or as text', () => {
  const found = ['48 69', '0x48 0x69', '4869', '"Hi"', ' "ü" ', '', '4', 'Hi', '4x', '""'].map((text) =>
    parseBytes(text),
  );
  const hi = Uint8Array.of(0x48, 0x69);
  expect(found).toEqual([
    hi,
    hi,
    hi,
    hi,
    Uint8Array.of(0xc3, 0xbc),
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});

test('a day has its parts in the order that sorts', () => {
  expect(formatDate(new Date(2024, 1, 29, 12).getTime())).toBe('2024-02-29');
  expect(formatDate(Number.NaN)).toBe('');
});
