/**
 * The fields that Rock Ridge adds to a directory record of ISO 9660: long names, kinds, links, times, and directories
 * that were moved because they were too deep. Sources: IEEE P1281 (SUSP) and P1282 (RRIP).
 */

import { viewOf } from './bytes.ts';

export interface RockRidge {
  name: string;
  /** Type and permissions as in POSIX. */
  mode: number | undefined;
  linkTarget: string;
  modifiedMs: number | undefined;
  /** The block of the directory that this entry stands for. */
  childBlock: number | undefined;
  /** Whether the entry is a moved directory in the place where it is stored, not where it belongs. */
  isMoved: boolean;
  isCompressed: boolean;
}

/** A part of the fields that is stored elsewhere. */
export interface Continuation {
  readonly block: number;
  readonly offset: number;
  readonly length: number;
}

/** A record's fields end after this many parts. */
const MAX_PARTS = 16;
const MAX_PART_BYTES = 4096;
const MAX_NAME_BYTES = 1024;
const MAX_TARGET_BYTES = 4096;

/** Returns how many bytes each record has before its fields, or `undefined` if `first`, of the root, has no fields. */
export function skippedBytes(first: Uint8Array): number | undefined {
  const isMarked =
    first.length >= 7 && first[0] === 0x53 && first[1] === 0x50 && first[4] === 0xbe && first[5] === 0xef;
  return isMarked ? first[6]! : undefined;
}

/** Reads the fields in `area` and in its continuations. Fields that are damaged or too long are left out. */
export async function readRockRidge(
  area: Uint8Array,
  more: (place: Continuation) => Promise<Uint8Array>,
): Promise<RockRidge> {
  const found = new Fields();
  let next = found.add(area);
  for (let part = 1; next !== undefined && part < MAX_PARTS; part++) {
    if (next.length > MAX_PART_BYTES) break;
    next = found.add(await more(next));
  }
  return found.result();
}

class Fields {
  #name: number[] = [];
  #target: number[] = [];
  /** Whether the next component of the target continues the last one. */
  #joins = true;
  readonly #found: RockRidge = {
    name: '',
    mode: undefined,
    linkTarget: '',
    modifiedMs: undefined,
    childBlock: undefined,
    isMoved: false,
    isCompressed: false,
  };

  /** Adds the fields in `area`. Returns the place of the next part. */
  add(area: Uint8Array): Continuation | undefined {
    let next: Continuation | undefined;
    for (let at = 0; at + 4 <= area.length; ) {
      const length = area[at + 2]!;
      const kind = String.fromCharCode(area[at]!, area[at + 1]!);
      if (length < 4 || at + length > area.length || kind === 'ST') break;
      const field = area.subarray(at, at + length);
      if (kind === 'CE' && length >= 28) {
        const view = viewOf(field);
        const [block, offset, bytes] = [view.getUint32(4, true), view.getUint32(12, true), view.getUint32(20, true)];
        next = { block, offset, length: bytes };
      } else this.#addField(kind, field);
      at += length;
    }
    return next;
  }

  result(): RockRidge {
    const decoder = new TextDecoder();
    const name = decoder.decode(Uint8Array.from(this.#name));
    return { ...this.#found, name, linkTarget: decoder.decode(Uint8Array.from(this.#target)) };
  }

  #addField(kind: string, field: Uint8Array): void {
    const found = this.#found;
    const isLong = field.length >= 8;
    if (kind === 'NM' && this.#name.length < MAX_NAME_BYTES) this.#name.push(...field.subarray(5));
    else if (kind === 'PX' && isLong) found.mode = viewOf(field).getUint32(4, true);
    else if (kind === 'CL' && isLong) found.childBlock = viewOf(field).getUint32(4, true);
    else if (kind === 'RE') found.isMoved = true;
    else if (kind === 'ZF') found.isCompressed = true;
    else if (kind === 'TF') found.modifiedMs ??= modificationTime(field);
    else if (kind === 'SL') this.#addTarget(field);
  }

  /** Adds the components of a link's target. A flag says whether a component continues in the next one. */
  #addTarget(field: Uint8Array): void {
    for (let at = 5; at + 2 <= field.length && this.#target.length < MAX_TARGET_BYTES; ) {
      const flags = field[at]!;
      const end = at + 2 + field[at + 1]!;
      if (!this.#joins) this.#target.push(0x2f);
      if (flags & 2) this.#target.push(0x2e);
      else if (flags & 4) this.#target.push(0x2e, 0x2e);
      else if (flags & 8) this.#target.push(0x2f);
      else this.#target.push(...field.subarray(at + 2, end));
      this.#joins = (flags & 9) !== 0;
      at = end;
    }
  }
}

/** Returns the time of the last change of a field that has up to seven times in a fixed order. */
function modificationTime(field: Uint8Array): number | undefined {
  const flags = field[4] ?? 0;
  if (!(flags & 2)) return undefined;
  const bytes = flags & 0x80 ? 17 : 7;
  const time = field.subarray(5 + (flags & 1 ? bytes : 0)).subarray(0, bytes);
  if (time.length < bytes) return undefined;
  return bytes === 7 ? recordTime(time) : digitTime(time);
}

/** Converts the seven bytes of a time in a directory record. */
export function recordTime(time: Uint8Array): number | undefined {
  const [year, month, day, hour, minute, second, zone] = time;
  if (!month || !day) return undefined;
  return Date.UTC(1900 + year!, month - 1, day, hour, minute, second) - ((zone! << 24) >> 24) * 900_000;
}

/** Converts a time of sixteen digits, the last two of which are hundredths of a second, and a zone. */
function digitTime(time: Uint8Array): number | undefined {
  const digits = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(String.fromCharCode(...time.subarray(0, 16)));
  if (digits === null) return undefined;
  const [year, month, day, hour, minute, second, part] = digits.slice(1).map(Number);
  const zone = (time[16]! << 24) >> 24;
  return Date.UTC(year!, month! - 1, day, hour, minute, second, part! * 10) - zone * 900_000;
}
