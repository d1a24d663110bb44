/**
 * The files of a disk: the image, the backing files below it, and external data files.
 *
 * Invariants:
 * - A file that an image names is opened by the caller's function only.
 * - A chain has an end: at most {@link MAX_LAYERS} images, so that one that leads back to itself is refused.
 */

import { platformUnpacker } from '#unpacker';
import type { InlineSource, Source } from '../source.ts';
import {
  CONVERT,
  corrupt,
  HEADER_BYTES,
  type Header,
  type NameRange,
  parseHeader,
  textOf,
  unsupported,
} from './header.ts';
import { type Below, Layer, PlainLayer } from './layer.ts';
import { TableCache } from './table-cache.ts';

const MAX_LAYERS = 64;

/** A file that a qcow2 image names. */
export interface Qcow2File {
  /** `backing`: has what the image does not have. `data`: has the image's clusters. */
  readonly kind: 'backing' | 'data';
  /** As it stands in the image, for example a path relative to the image. */
  readonly name: string;
  /** The image that names the file: the source itself, or one that `openFile` has opened. */
  readonly namedBy: Source;
}

export type OpenFile = (file: Qcow2File) => Promise<Source>;

/** Tells how a backing file is to be read whose image does not say. */
type FormatOf = (source: Source) => Promise<'raw' | 'qcow2'>;

export class Chain {
  readonly #openFile: OpenFile | undefined;
  readonly #formatOf: FormatOf;
  readonly #tables = new TableCache();
  readonly #opened: Source[] = [];
  readonly #files: InlineSource[] = [];

  constructor(openFile: OpenFile | undefined, formatOf: FormatOf) {
    this.#openFile = openFile;
    this.#formatOf = formatOf;
  }

  /** Undefined if the content of a file has no name. */
  get identity(): string | undefined {
    const identities = this.#files.map(({ identity }) => identity);
    return identities.includes(undefined) ? undefined : `qcow2(${identities.join(' ')})`;
  }

  /** What all files permit. */
  get mode(): number {
    return this.#files.reduce((all, { mode = 0o666 }) => all & mode, 0o777);
  }

  /**
   * Opens an image and what it needs.
   * @throws as `qcow2Source`
   */
  async open(file: Source, depth = 0): Promise<Below> {
    if (depth === MAX_LAYERS) throw unsupported(`the chain of backing files has more than ${MAX_LAYERS} images`);
    this.#files.push(file);
    const bytes = new Uint8Array(Math.min(HEADER_BYTES, file.size));
    await file.read(bytes, 0);
    const header = parseHeader(bytes, file.size);
    const unpack = await platformUnpacker(header.compression);
    const data = header.hasDataFile ? await this.#openData(header, file) : file;
    const below = header.backing && (await this.#openBacking(header, header.backing, file, depth));
    return new Layer({ header, file, data, below, tables: this.#tables, unpack });
  }

  async #openData({ dataFile }: Header, namedBy: Source): Promise<Source> {
    if (dataFile === undefined) throw corrupt('the image has an external data file without a name');
    const file = await this.#openNamed({ kind: 'data', name: dataFile, namedBy });
    this.#files.push(file);
    return file;
  }

  async #openBacking(
    { backingFormat }: Header,
    { offset, length }: NameRange,
    namedBy: Source,
    depth: number,
  ): Promise<Below> {
    const bytes = new Uint8Array(length);
    await namedBy.read(bytes, offset);
    const name = textOf(bytes);
    if (backingFormat !== undefined && backingFormat !== 'raw' && backingFormat !== 'qcow2')
      throw unsupported(`the backing file ${name} has the format ${backingFormat}: ${CONVERT}`);
    const file = await this.#openNamed({ kind: 'backing', name, namedBy });
    if ((backingFormat ?? (await this.#formatOf(file))) === 'qcow2') return this.open(file, depth + 1);
    this.#files.push(file);
    return new PlainLayer(file);
  }

  async #openNamed(named: Qcow2File): Promise<Source> {
    if (this.#openFile === undefined) {
      const role = named.kind === 'backing' ? 'a backing file' : 'an external data file';
      throw unsupported(
        `the image needs ${role}, ${named.name}, which is not opened without permission (--backing, openFile)`,
      );
    }
    const file = await this.#openFile(named);
    this.#opened.push(file);
    return file;
  }

  /** Closes the files that were opened for the image. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#opened.map((file) => file.close()));
  }
}
