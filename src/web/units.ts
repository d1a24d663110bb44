/** Formats and parses numbers for the user. */

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Formats a size with three digits, in units of 1024. */
export function formatBytes(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  if (unit === 0) return value === 1 ? '1 byte' : `${Math.round(value)} bytes`;
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${Number(value.toFixed(digits))} ${UNITS[unit]}`;
}

/** Formats a share. Rounds down, so that an incomplete part never shows as 100 %. */
export function formatShare(part: number, whole: number): string {
  if (whole === 0 || part >= whole) return '100 %';
  const percent = (part / whole) * 100;
  if (percent > 0 && percent < 0.01) return '< 0.01 %';
  return percent < 10 ? `${Math.floor(percent * 100) / 100} %` : `${Math.floor(percent * 10) / 10} %`;
}

export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '';
  if (seconds < 60) return `${Math.max(1, Math.ceil(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function formatMilliseconds(ms: number): string {
  // Firefox's clock has a resolution of 1 ms.
  if (ms === 0) return '< 1 ms';
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Formats the day of a time in ms since 1970, in the user's time zone, so that days sort as text. */
export function formatDate(ms: number): string {
  const day = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, '0');
  return Number.isNaN(day.getTime()) ? '' : `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
}

/** Formats an offset in hexadecimal, without `0x`. */
export function formatOffset(offset: number, digits = 8): string {
  return offset.toString(16).padStart(digits, '0');
}

/**
 * Parses an offset: hexadecimal with or without `0x`, or decimal with a unit. Returns `undefined` for anything else.
 */
export function parseOffset(text: string): number | undefined {
  const plain = text.trim().replaceAll(/[\s_,]/g, '');
  const hex = /^(?:0x)?([0-9a-f]+)h?$/i.exec(plain);
  const scaled = /^(\d+(?:\.\d+)?)(kib|mib|gib|tib|[kmgt])$/i.exec(plain);
  const power = scaled === null ? -1 : 'kmgt'.indexOf(scaled[2]![0]!.toLowerCase());
  const value =
    scaled !== null
      ? Math.floor(Number(scaled[1]) * 1024 ** (power + 1))
      : hex === null
        ? Number.NaN
        : Number.parseInt(hex[1]!, 16);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Parses bytes: pairs of hexadecimal digits, or text in double quotes. Returns `undefined` for anything else. */
export function parseBytes(text: string): Uint8Array | undefined {
  const quoted = /^"(.+)"$/s.exec(text.trim());
  if (quoted !== null) return new TextEncoder().encode(quoted[1]);
  const digits = text.replaceAll(/\s|0x/g, '');
  if (!/^([0-9a-f]{2})+$/i.test(digits)) return undefined;
  return Uint8Array.from(digits.match(/../g)!, (pair) => Number.parseInt(pair, 16));
}
