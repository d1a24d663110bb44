/** The view of one file: its facts, its place on the disk, a preview, and its download. */

import { el, setText } from './dom.ts';
import { charactersOf } from './hex-view.ts';
import { brief } from './problem.ts';
import { chooseSavePlace, saveStream } from './save-stream.ts';
import type { Session } from './session.ts';
import { formatBytes, formatMilliseconds, formatOffset, formatShare } from './units.ts';
import { type Entry, type FileInfo, readFile, readPart, type Volume } from './volumes/volume.ts';

export interface ShownFile {
  readonly volume: Volume;
  readonly entry: Entry;
  readonly path: string;
  /** Offset of the volume on the disk, in bytes. */
  readonly volumeStart: number;
}

export interface FileViewOptions {
  readonly session: Session;
  onFile(ranges: readonly { start: number; end: number }[]): void;
  onShowBytes(offset: number): void;
}

const PREVIEW_BYTES = 2 ** 15;
const MAX_PICTURE_BYTES = 2 ** 23;
/** The map marks at most this many pieces of a file. */
const MAX_MARKS = 2000;
const DOWNLOAD_PIECE_BYTES = 2 ** 22;
const PICTURES: Readonly<Record<string, string>> = {
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  gif: 'image/gif',
  webp: 'image/webp',
  bmp: 'image/bmp',
};

export class FileView {
  readonly element: HTMLElement;
  readonly #options: FileViewOptions;
  readonly #body: HTMLElement;
  #looking: AbortController | undefined;
  #picture: string | undefined;

  constructor(options: FileViewOptions) {
    this.#options = options;
    this.#body = el(
      'div',
      { class: 'file-body' },
      el('p', { class: 'muted' }, 'Choose a file. Its blocks are fetched first, wherever they are on the disk.'),
    );
    this.element = el(
      'section',
      { class: 'card file', 'aria-labelledby': 'file-title' },
      el('header', {}, el('h2', { id: 'file-title' }, 'File')),
      this.#body,
    );
  }

  close(): void {
    this.#looking?.abort();
    if (this.#picture !== undefined) URL.revokeObjectURL(this.#picture);
    this.#picture = undefined;
  }

  /** Shows a directory instead of a file. */
  showOther(element: HTMLElement): void {
    this.close();
    this.#options.onFile([]);
    this.#body.replaceChildren(element);
  }

  async show({ volume, entry, path, volumeStart }: ShownFile): Promise<void> {
    const { session } = this.#options;
    this.close();
    const looking = (this.#looking = new AbortController());
    const { signal } = looking;
    const title = el('h3', {}, el('bdi', {}, path));
    const line = el('p', { class: 'muted', role: 'status' }, 'Reading …');
    this.#body.replaceChildren(title, line);
    this.#options.onFile([]);
    try {
      const begun = performance.now();
      const file = await volume.look(entry, signal);
      const beginning = await readPart(volume, file, { from: 0, to: PREVIEW_BYTES }, signal);
      const took = performance.now() - begun;
      const ranges = await rangesOf(file, volumeStart, signal);
      if (signal.aborted) return;
      setText(
        line,
        `Read in ${formatMilliseconds(took)}, ${formatShare(session.syncedBytes, session.size)} of the disk copied.`,
      );
      this.#options.onFile(ranges);
      this.#body.append(facts(file, ranges, entry));
      if (file.linkTarget === undefined && entry.kind === 'file')
        this.#body.append(this.#actions({ volume, file, entry, start: ranges[0]?.start }));
      const preview = await this.#preview(volume, file, entry, beginning, signal);
      if (!signal.aborted) this.#body.append(preview);
    } catch (error) {
      if (!signal.aborted) setText(line, brief(error));
    }
  }

  #actions({
    volume,
    file,
    entry,
    start,
  }: {
    volume: Volume;
    file: FileInfo;
    entry: Entry;
    start: number | undefined;
  }): HTMLElement {
    const download = el(
      'button',
      { type: 'button', onclick: () => void this.#download(volume, file, entry.name, download) },
      'Download',
    );
    const bytes =
      start === undefined
        ? undefined
        : el(
            'button',
            { type: 'button', class: 'quiet', onclick: () => this.#options.onShowBytes(start) },
            'Show bytes',
          );
    return el('div', { class: 'actions' }, download, bytes);
  }

  /** Reads the whole file and saves it. A second press stops the download. */
  async #download(volume: Volume, file: FileInfo, name: string, button: HTMLButtonElement): Promise<void> {
    const stop = new AbortController();
    const onStop = (event: Event): void => {
      event.stopImmediatePropagation();
      stop.abort();
    };
    let outcome = 'Download';
    const pieces = async function* (): AsyncGenerator<Uint8Array> {
      let done = 0;
      const options = { pieceBytes: DOWNLOAD_PIECE_BYTES, signal: stop.signal };
      for await (const piece of readFile(volume, file, { from: 0, to: file.size }, options)) {
        yield piece;
        done += piece.length;
        setText(button, `Stop · ${formatShare(done, file.size)}`);
      }
    };
    try {
      const place = await chooseSavePlace(name, file.size);
      button.addEventListener('click', onStop, { capture: true, signal: stop.signal });
      await saveStream(place, name, pieces());
    } catch (error) {
      if (!stop.signal.aborted && (error as Error).name !== 'AbortError') outcome = `Download again: ${brief(error)}`;
    }
    stop.abort();
    setText(button, outcome);
  }

  async #preview(
    volume: Volume,
    file: FileInfo,
    entry: Entry,
    beginning: Uint8Array,
    signal: AbortSignal,
  ): Promise<HTMLElement> {
    if (file.linkTarget !== undefined) return el('p', {}, 'A link to ', el('code', {}, file.linkTarget));
    if (beginning.length === 0)
      return el('p', { class: 'muted' }, entry.kind === 'file' ? 'The file is empty.' : 'This entry has no contents.');
    const type = PICTURES[entry.name.split('.').at(-1)?.toLowerCase() ?? ''];
    if (type !== undefined && file.size <= MAX_PICTURE_BYTES) {
      const bytes = await readPart(volume, file, { from: 0, to: file.size }, signal);
      this.#picture = URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type }));
      return el('img', { src: this.#picture, alt: `Picture ${entry.name}` });
    }
    const text = textOf(beginning, beginning.length < file.size);
    const cut =
      beginning.length < file.size
        ? [el('p', { class: 'muted' }, `The first ${formatBytes(beginning.length)} of ${formatBytes(file.size)}.`)]
        : [];
    return el(
      'div',
      {},
      el('pre', { tabindex: 0, 'aria-label': 'Beginning of the file' }, text ?? dump(beginning.subarray(0, 1024))),
      ...cut,
    );
  }
}

function facts(file: FileInfo, ranges: readonly unknown[], entry: Entry): HTMLElement {
  const pieces =
    ranges.length === 0
      ? 'without blocks'
      : ranges.length === 1
        ? 'in one piece'
        : `in ${ranges.length >= MAX_MARKS ? `${MAX_MARKS} or more` : ranges.length} pieces`;
  const rows: (readonly [string, string])[] = [
    ['Size', `${formatBytes(file.size)}${file.size >= 1024 ? ` (${file.size.toLocaleString('en')} bytes)` : ''}`],
    ['Changed', file.modifiedMs === undefined ? 'unknown' : new Date(file.modifiedMs).toLocaleString()],
  ];
  if (entry.kind === 'file' && file.size > 0) rows.push(['On the disk', pieces]);
  return el('dl', {}, ...rows.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]));
}

/** Returns where a file is on the disk: at most {@link MAX_MARKS} byte ranges. Holes have none. */
async function rangesOf(
  file: FileInfo,
  volumeStart: number,
  signal: AbortSignal,
): Promise<{ start: number; end: number }[]> {
  const ranges: { start: number; end: number }[] = [];
  let holes = 0;
  for await (const { offset, length } of file.runs(signal)) {
    if (offset !== undefined) ranges.push({ start: volumeStart + offset, end: volumeStart + offset + length });
    else holes++;
    if (ranges.length + holes >= MAX_MARKS) break;
  }
  return ranges;
}

/** Decodes UTF-8. Returns `undefined` if the bytes are not text. */
function textOf(bytes: Uint8Array, isCut: boolean): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    // The preview may end within a character.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: isCut });
  } catch {
    return undefined;
  }
}

function dump(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const hex = Array.from(row, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    lines.push(`${formatOffset(at, 4)}  ${hex.padEnd(47)}  ${charactersOf(row)}`);
  }
  return lines.join('\n');
}
