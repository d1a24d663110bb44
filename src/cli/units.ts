/** Parses and formats sizes, rates and durations for people. */

import { UsageError } from './failure.ts';

/** Sizes and rates use binary prefixes: `k` is 1024. The long units are those of {@link formatBytes}. */
const BINARY: Readonly<Record<string, number>> = {
  '': 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  byte: 1,
  bytes: 1,
  pib: 2 ** 50,
};
/** Bit rates use decimal prefixes, as links are sold. */
const BITS: Readonly<Record<string, number>> = { kbit: 1e3 / 8, mbit: 1e6 / 8, gbit: 1e9 / 8 };

const NUMBER = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i;

/**
 * Returns the bytes of a size: a number, optionally with `k`, `M`, `G` or `T` (powers of 1024), also written `KiB` etc.
 * Takes whatever {@link formatBytes} returns for 1 byte or more. Drops fractions of a byte.
 * @throws {@link UsageError} if the text is no size, is less than 1 byte, or exceeds 2^53 - 1 bytes.
 */
export function parseSize(text: string): number {
  return parse(text, BINARY, '4096, 512k, 10G or 1.5T');
}

/**
 * Returns the bytes per second of a rate: as {@link parseSize}, or in bits with `kbit`, `mbit`, `gbit` (powers of
 * 1000).
 * @throws {@link UsageError} as {@link parseSize}.
 */
export function parseRate(text: string): number {
  return parse(text.replace(/\/s\s*$/, ''), { ...BINARY, ...BITS }, '500k, 20M or 250mbit');
}

/** As {@link parseRate}, or `unlimited`. */
export function parseRateOrNone(text: string): number | 'unlimited' {
  return text.trim() === 'unlimited' ? 'unlimited' : parseRate(text);
}

function parse(text: string, units: Readonly<Record<string, number>>, examples: string): number {
  const match = NUMBER.exec(text.trim());
  const unit = units[match?.[2]?.toLowerCase().replace(/^([kmgt])ib$/, '$1') ?? 'none'];
  if (match === null || unit === undefined) throw new UsageError(`Use for example ${examples}.`);
  const bytes = Math.floor(Number(match[1]) * unit);
  if (bytes < 1) throw new UsageError('Use at least 1 byte.');
  if (!Number.isSafeInteger(bytes)) throw new UsageError('Use less than 8192T.');
  return bytes;
}

/** Returns a whole number from `min` to `max`. @throws {@link UsageError} for any other text. */
export function parseInteger(text: string, bounds: { min: number; max: number }): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= bounds.min && value <= bounds.max))
    throw new UsageError(`Use an integer from ${bounds.min} to ${bounds.max}.`);
  return value;
}

/** Returns a SHA-256 digest in lower-case hex. @throws {@link UsageError} if the text is no digest. */
export function parseSha256(text: string): string {
  if (!/^[0-9a-f]{64}$/i.test(text)) throw new UsageError('Use 64 hexadecimal digits.');
  return text.toLowerCase();
}

/** As {@link parseSha256}, for SHA-512. */
export function parseSha512(text: string): string {
  if (!/^[0-9a-f]{128}$/i.test(text)) throw new UsageError('Use 128 hexadecimal digits.');
  return text.toLowerCase();
}

const GROUP_NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/i;

/**
 * Returns the name of a rate group, which is also part of a directory's name. @throws {@link UsageError} if it is
 * invalid.
 */
export function parseGroupName(text: string): string {
  if (!GROUP_NAME.test(text))
    throw new UsageError('Use 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or digit.');
  return text;
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** For example `1.25 GiB`. Two decimals below 10, one below 100, otherwise none; a whole number has none. */
export function formatBytes(bytes: number): string {
  let power = 0;
  let value = bytes;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power++;
  }
  const digits = Number.isInteger(value) ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)} ${bytes === 1 ? 'byte' : UNITS[power]}`;
}

/** For example `12.5 MiB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(Math.round(bytesPerSecond))}/s`;
}

/** For example `41.2 %`. Rounded down, so that 100 % means complete. */
export function formatPercent(part: number, whole: number): string {
  const tenths = whole === 0 ? 1000 : Math.floor((part / whole) * 1000);
  return tenths >= 1000 ? '100 %' : `${(tenths / 10).toFixed(1)} %`;
}

/** For example `12 ms`, `0:07`, `12:05`, `3:00:00`. Rounded up. */
export function formatDuration(seconds: number): string {
  const ms = Math.ceil(seconds * 1000);
  if (ms > 0 && ms < 1000) return `${ms} ms`;
  const whole = Math.max(0, Math.ceil(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown.map((part, index) => (index === 0 ? String(part) : String(part).padStart(2, '0'))).join(':');
}

/** For example `65,536`. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** For example `1 block`, `2,000 blocks`. */
export function counted(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}
