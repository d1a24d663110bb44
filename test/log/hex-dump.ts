/**
 * Converts metadata files to the annotated hex dumps of docs/FORMAT.md, and back. This decoder follows that document
 * and shares no code with src, so that the examples check both.
 *
 * A line is an offset, bytes, and a comment after `;`. A line `*` stands for zeros up to the next line's offset.
 */

type Row = readonly [length: number, comment: string];

/** Cuts a file into consecutive rows. */
class Reader {
  readonly rows: Row[] = [];
  at = 0;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  #row(length: number, comment: string): void {
    this.rows.push([length, comment]);
    this.at += length;
  }

  number(bytes: 2 | 4 | 8, name: (value: number) => string): number {
    const value =
      bytes === 8
        ? Number(this.#view.getBigUint64(this.at, true))
        : bytes === 4
          ? this.#view.getUint32(this.at, true)
          : this.#view.getUint16(this.at, true);
    this.#row(bytes, name(value));
    return value;
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  text(length: number, name: (value: string) => string): string {
    const value = new TextDecoder().decode(this.#bytes.subarray(this.at, this.at + length));
    this.#row(length, name(JSON.stringify(value).replaceAll('\\u0000', '\\0')));
    return value;
  }

  opaque(length: number, comment: string): void {
    if (length > 0) this.#row(length, comment);
  }

  zerosTo(end: number, comment = ''): void {
    this.opaque(end - this.at, comment);
  }

  padding(): void {
    this.zerosTo(Math.ceil(this.at / 8) * 8, 'padding');
  }
}

function header(reader: Reader): { kind: string; version: number } {
  const kind = reader.text(8, (magic) => `magic ${magic}`);
  const version = reader.number(8, (value) => `format ${value}`);
  return { kind: kind.slice(4, 7), version };
}

function roaring(reader: Reader): void {
  reader.number(4, (cookie) => `Roaring: cookie ${cookie}, no runs`);
  const count = reader.number(4, (value) => `${value} container`);
  const cardinalities: number[] = [];
  for (let index = 0; index < count; index++) {
    const key = reader.u16(reader.at);
    reader.opaque(2, `key ${key}`);
    cardinalities.push(reader.number(2, (value) => `${value + 1} values`) + 1);
  }
  for (let index = 0; index < count; index++) reader.number(4, (offset) => `from byte ${offset} of this bitmap on`);
  for (const cardinality of cardinalities) {
    const values = Array.from({ length: cardinality }, (_, index) => reader.u16(reader.at + 2 * index));
    reader.opaque(2 * cardinality, `blocks ${values.join(', ')}`);
  }
}

function checkpoint2(reader: Reader): void {
  reader.opaque(16, 'session');
  reader.number(8, (value) => `epoch ${value}`);
  reader.number(8, (value) => `size ${value}`);
  reader.number(4, (value) => `blockSize ${value}`);
  reader.number(4, (value) => (value === 1 ? 'standalone' : 'not standalone'));
  reader.number(8, (value) => `checkpoint of ${value} bytes`);
  reader.opaque(4, 'CRC32C of identity and directory');
  const identity = reader.number(4, (value) => `identity of ${value} bytes`);
  reader.number(8, (value) => `${value} synced blocks`);
  reader.number(8, (value) => `${value} dirty block`);
  reader.number(8, (value) => `${value} modified blocks`);
  reader.zerosTo(500);
  reader.opaque(4, 'CRC32C of the header');
  reader.text(8, () => 'end of the header');
  reader.text(identity, (value) => `identity ${value}`);
  reader.padding();
  reader.number(8, (value) => `slice 0 begins at byte ${value}`);
  const dirty = reader.number(4, (value) => `dirty section of ${value} bytes`);
  reader.number(4, (value) => `bitmap of ${value} bytes`);
  reader.number(4, (value) => `bitmap of modified blocks of ${value} bytes`);
  reader.opaque(4, 'CRC32C of the slice');
  reader.number(4, (value) => `${value} dirty block`);
  reader.number(4, (value) => `${value} synced blocks`);
  reader.number(4, (value) => `${value} modified blocks`);
  reader.opaque(4, '0');
  for (const end = reader.at + dirty; reader.at < end; ) {
    reader.number(4, (value) => `dirty: block ${value} of the slice`);
    const parts = reader.number(4, (value) => `${value} parts`);
    for (let part = 0; part < parts; part++) {
      reader.number(4, (value) => `from byte ${value}`);
      reader.number(4, (value) => `to byte ${value}, not included`);
    }
  }
  roaring(reader);
  reader.padding();
  roaring(reader);
  reader.padding();
}

/** A record: the low 56 bits of its first word, and both halves of its second word. */
const RECORDS: Readonly<Record<number, (first: number, low: number, high: number) => string>> = {
  1: (first, low) => `WRITTEN: ${low} bytes from ${first} on`,
  2: (_, low) => `BARRIER: frames below ${low}`,
  3: () => 'CONTINUED',
  4: () => 'BASED',
  5: (first) => `MAY_READ: the cell at ${first}`,
  6: (first) => `WRITTEN_PAIR: 8192 bytes from ${first} on`,
  7: (first, low, high) => `FILLED: ${low + high * 2 ** 32} bytes from ${first} on`,
  8: (first, low, high) => `MODIFIED: ${low + high * 2 ** 32} bytes from ${first} on`,
};

function log2(reader: Reader, view: DataView): void {
  reader.opaque(16, 'session');
  reader.number(8, (value) => `epoch ${value}`);
  reader.number(8, (value) => `size ${value}`);
  reader.number(4, (value) => `blockSize ${value}`);
  reader.number(4, () => 'no flags');
  reader.number(8, (value) => `file of ${value} bytes`);
  reader.zerosTo(500);
  reader.opaque(4, 'CRC32C of the header');
  reader.text(8, () => 'end of the header');
  for (let length = reader.u16(reader.at); ; length = reader.u16(reader.at)) {
    const left = 512 - (reader.at % 512);
    if (length === 0) {
      // The next frame did not fit into the sector, or there is no next frame.
      if (reader.at + left + 2 > view.byteLength || view.getUint16(reader.at + left, true) === 0) break;
      reader.opaque(left, '');
      continue;
    }
    reader.number(2, (value) => `frame of ${value} bytes`);
    reader.opaque(2, 'inverted');
    reader.number(4, (value) => `epoch ${value}`);
    reader.number(4, (value) => `sequence ${value}`);
    reader.number(4, (value) => `firm ${value}`);
    for (let record = 0; record < (length - 24) / 16; record++) {
      const word = view.getBigUint64(reader.at, true);
      const type = Number(word >> 56n);
      const [low, high] = [view.getUint32(reader.at + 8, true), view.getUint32(reader.at + 12, true)];
      reader.opaque(16, RECORDS[type]!(Number(word & (2n ** 56n - 1n)), low, high));
    }
    reader.opaque(4, 'CRC32C of the frame');
    reader.text(4, (value) => value);
  }
  reader.zerosTo(view.byteLength);
}

function log1(reader: Reader, end: number): void {
  while (reader.at < end) {
    const isTorn = reader.at + 16 > end;
    const type = reader.number(
      8,
      (value) => (value === 1 ? 'synced' : value === 2 ? 'written' : 'the end') + (isTorn ? ', cut short' : ''),
    );
    if (type === 0 || isTorn) break;
    reader.number(8, (value) => `block ${value}`);
    if (type === 2) {
      reader.number(8, (value) => `from byte ${value}`);
      reader.number(8, (value) => `${value} bytes`);
    }
  }
}

function checkpoint1(reader: Reader): void {
  while (reader.number(8, (value) => (value > 0 ? `bitmap of ${value} bytes` : 'no more bitmaps')) > 0) roaring(reader);
  while (reader.number(8, (value) => (value === 1 ? 'dirty part' : 'the end')) === 1) {
    reader.number(8, (value) => `block ${value}`);
    reader.number(8, (value) => `from byte ${value}`);
    reader.number(8, (value) => `${value} bytes`);
  }
}

function rowsOf(bytes: Uint8Array): readonly Row[] {
  const reader = new Reader(bytes);
  const { kind, version } = header(reader);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (version === 1 && kind === 'BAK') checkpoint1(reader);
  else if (version === 1) log1(reader, bytes.length);
  else if (kind === 'BAK') checkpoint2(reader);
  else log2(reader, view);
  return reader.rows;
}

function line(offset: number, bytes: Uint8Array, comment: string): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  const annotation = comment === '' ? '' : `; ${comment}`;
  return `${offset.toString(16).padStart(6, '0')}  ${hex.padEnd(47)}  ${annotation}`.trimEnd();
}

/** The annotated dump of a whole file. */
export function dump(bytes: Uint8Array): string {
  const lines: string[] = [];
  let at = 0;
  for (const [length, comment] of rowsOf(bytes)) {
    const row = bytes.subarray(at, at + length);
    if (length > 16 && row.every((byte) => byte === 0)) lines.push('*');
    else
      for (let part = 0; part < length; part += 16)
        lines.push(line(at + part, row.subarray(part, part + 16), part === 0 ? comment : ''));
    at += length;
  }
  if (lines.at(-1) === '*') lines.push(at.toString(16).padStart(6, '0'));
  return lines.join('\n');
}

/** The bytes of a dump. */
export function undump(text: string): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  let skipping = false;
  for (const row of text.split('\n')) {
    if (row === '*') {
      skipping = true;
      continue;
    }
    const [offset, ...hex] = row.replace(/;.*/, '').trim().split(/\s+/);
    const at = Number.parseInt(offset!, 16);
    if (skipping) while (bytes.length < at) bytes.push(0);
    skipping = false;
    if (bytes.length !== at) throw new Error(`line ${row}: ${bytes.length} bytes precede it, ${at} expected`);
    for (const byte of hex) bytes.push(Number.parseInt(byte, 16));
  }
  return new Uint8Array(bytes);
}

/** The fenced blocks of a Markdown text with the info string `hex NAME`, by name. */
export function dumpsIn(markdown: string): Map<string, string> {
  const dumps = new Map<string, string>();
  for (const [, name, text] of markdown.matchAll(/^```hex (\S+)\n(.*?)\n```$/gms)) dumps.set(name!, text!);
  return dumps;
}
