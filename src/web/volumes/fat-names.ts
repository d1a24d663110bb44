/** Names of FAT: what a name may be, its short alias, and the directory entries that store both. */

import { VolumeError, viewOf } from './bytes.ts';
import { ENTRY_BYTES } from './fat.ts';

const MAX_NAME = 255;
/** UTF-16 units in one entry of a long name, and their places in it. */
const UNIT_PLACES = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30] as const;
const SHORT = /^[A-Z0-9!#$%&'()\-@^_`{}~]+$/;
/** Marks a base name or an extension in lower case, as Windows does. */
const LOWER_BASE = 0x08;
const LOWER_EXTENSION = 0x10;
/** Beyond this number, aliases of one beginning would leave no beginning. */
const MAX_ALIAS = 999_999;
/** Names that DOS and Windows give to devices. */
const DEVICES = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?$/i;

/** Throws a {@link VolumeError} for a name that FAT cannot store, or that Windows cannot open. */
export function checkName(name: string): void {
  const fault =
    name === '' || name === '.' || name === '..'
      ? 'is not the name of a file'
      : name.length > MAX_NAME
        ? `is longer than ${MAX_NAME} characters`
        : /[\p{Cc}"*/:<>?\\|]/u.test(name)
          ? 'has a character that FAT does not permit'
          : /[. ]$/.test(name)
            ? 'ends with a dot or a space, which FAT does not permit'
            : DEVICES.test(name)
              ? 'is the name of a device in Windows'
              : undefined;
  if (fault !== undefined) throw new VolumeError(`“${name.slice(0, 80)}” ${fault}: rename the file first`);
}

/** The stored form of a name. */
export interface StoredName {
  /** 11 bytes: the short name, padded with spaces. */
  readonly short: Uint8Array;
  /** The byte that marks lower case. */
  readonly caseBits: number;
  /** The entries of the long name in the order of the directory. Empty if the short name says all. */
  readonly long: readonly Uint8Array[];
}

/** Returns the stored form of `name`. `isTaken` tells whether a short name such as `LONGNA~1.TXT` exists already. */
export function storedName(name: string, isTaken: (short: string) => boolean): StoredName {
  const plain = plainShort(name);
  if (plain !== undefined) return { ...plain, long: [] };
  const short = padded(...alias(name, isTaken));
  return { short, caseBits: 0, long: longEntries(name, short) };
}

/** Returns the short name that says all of `name`, if there is one. */
function plainShort(name: string): { short: Uint8Array; caseBits: number } | undefined {
  const [base = '', extension = '', ...more] = name.split('.');
  if (more.length > 0 || base.length > 8 || extension.length > 3 || (extension === '' && name.includes('.'))) return;
  let caseBits = 0;
  for (const [part, bit] of [
    [base, LOWER_BASE],
    [extension, LOWER_EXTENSION],
  ] as const) {
    if (part === '' && bit === LOWER_EXTENSION) continue;
    if (!SHORT.test(part.toUpperCase())) return;
    if (part === part.toUpperCase()) continue;
    if (part !== part.toLowerCase()) return;
    caseBits |= bit;
  }
  return { short: padded(base.toUpperCase(), extension.toUpperCase()), caseBits };
}

/** Returns base and extension of an alias that is not taken. */
function alias(name: string, isTaken: (short: string) => boolean): [string, string] {
  const whole = name.replaceAll(' ', '').replace(/^\.+/, '');
  const dot = whole.lastIndexOf('.');
  const clean = (part: string): string =>
    Array.from(part.toUpperCase(), (character) => (SHORT.test(character) ? character : '_')).join('');
  const base = clean(dot < 0 ? whole : whole.slice(0, dot).replaceAll('.', '')) || '_';
  const extension = dot < 0 ? '' : clean(whole.slice(dot + 1)).slice(0, 3);
  for (let number = 1; number <= MAX_ALIAS; number++) {
    const tail = `~${number}`;
    const candidate = base.slice(0, 8 - tail.length) + tail;
    if (!isTaken(extension === '' ? candidate : `${candidate}.${extension}`)) return [candidate, extension];
  }
  throw new VolumeError(`the directory has too many names that begin like “${name.slice(0, 80)}”`);
}

function padded(base: string, extension: string): Uint8Array {
  return new TextEncoder().encode(base.padEnd(8) + extension.padEnd(3));
}

/** Makes the entries of a long name: the last part first, each with the checksum of the short name. */
function longEntries(name: string, short: Uint8Array): Uint8Array[] {
  const sum = short.reduce((total, byte) => (((total & 1) << 7) + (total >> 1) + byte) & 0xff, 0);
  const count = Math.ceil(name.length / UNIT_PLACES.length);
  return Array.from({ length: count }, (_, index) => {
    const order = count - index;
    const raw = new Uint8Array(ENTRY_BYTES);
    raw[0] = order | (index === 0 ? 0x40 : 0);
    raw[11] = 0x0f;
    raw[13] = sum;
    const view = viewOf(raw);
    const from = (order - 1) * UNIT_PLACES.length;
    UNIT_PLACES.forEach((place, unit) => {
      const at = from + unit;
      // A name that does not fill its last entry ends with 0, and then 0xffff.
      view.setUint16(place, at < name.length ? name.charCodeAt(at) : at === name.length ? 0 : 0xffff, true);
    });
    return raw;
  });
}

/** Returns date and time of the format, which are local. The format's years are 1980 to 2107. */
export function dosDate(ms: number): { date: number; time: number } {
  const moment = new Date(ms);
  const year = moment.getFullYear();
  if (!(year >= 1980)) return { date: (1 << 5) | 1, time: 0 };
  if (year > 2107) return { date: (127 << 9) | (12 << 5) | 31, time: 0 };
  return {
    date: ((year - 1980) << 9) | ((moment.getMonth() + 1) << 5) | moment.getDate(),
    time: (moment.getHours() << 11) | (moment.getMinutes() << 5) | (moment.getSeconds() >> 1),
  };
}
