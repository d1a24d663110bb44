/** Shows what is on the disk: the partitions as a bar and as branches of a tree, and the files of their volumes. */

import { el } from './dom.ts';
import { FileView } from './file-view.ts';
import { FilesView } from './files-view.ts';
import { brief } from './problem.ts';
import type { Session } from './session.ts';
import { formatBytes } from './units.ts';
import { type DiskContents, findVolume, readDisk } from './volumes/disk.ts';
import type { Partition } from './volumes/partition-table.ts';

export interface ContentsOptions {
  readonly session: Session;
  /** Called when the user chooses a partition. */
  onPartition(partition: Partition): void;
  /** Called when the user opens a file. `ranges` are the file's byte ranges on the disk. */
  onFile(ranges: readonly { start: number; end: number }[]): void;
  /** Called when the user asks to see the bytes at `offset`. */
  onShowBytes(offset: number): void;
}

/** Looks for files to show at once in this many of the largest partitions. */
const MAX_TRIED = 4;

export class ContentsView {
  readonly element: HTMLElement;
  readonly #options: ContentsOptions;
  readonly #body: HTMLElement;
  readonly #title: HTMLElement;
  readonly #file: FileView;
  readonly #over = new AbortController();

  constructor(options: ContentsOptions) {
    this.#options = options;
    this.#title = el('small', {});
    this.#body = el(
      'div',
      { class: 'contents-body', role: 'status' },
      el('p', { class: 'muted' }, 'Reading the partition table …'),
    );
    this.#file = new FileView(options);
    const panel = el(
      'section',
      { class: 'card contents', 'aria-labelledby': 'contents-title' },
      el('header', {}, el('h2', { id: 'contents-title' }, 'Contents'), this.#title),
      this.#body,
    );
    this.element = el('div', { class: 'columns' }, panel, this.#file.element);
    void this.#read();
  }

  close(): void {
    this.#over.abort();
    this.#file.close();
  }

  async #read(): Promise<void> {
    try {
      const contents = await readDisk(this.#options.session, this.#over.signal);
      const files = new FilesView({
        ...this.#options,
        parts: contents.parts,
        file: this.#file,
        signal: this.#over.signal,
      });
      const { table } = contents;
      this.#title.textContent =
        table === undefined
          ? 'no partition table'
          : `${table.kind}, ${table.partitions.length} ${table.partitions.length === 1 ? 'partition' : 'partitions'}`;
      this.#body.removeAttribute('role');
      this.#body.replaceChildren(
        ...(table === undefined ? [] : [this.#bar(contents)]),
        ...(table?.remark === undefined ? [] : [el('p', { class: 'remark' }, `Warning: ${table.remark}.`)]),
        files.element,
      );
      await this.#openLargest(contents.parts, files);
    } catch (error) {
      if (this.#over.signal.aborted) return;
      const again = el('button', { type: 'button', class: 'small', onclick: () => void this.#read() }, 'Try again');
      this.#body.replaceChildren(el('p', { class: 'remark' }, brief(error)), again);
    }
  }

  /** Opens the largest partition that can be browsed: most likely its files are what the user came for. */
  async #openLargest(parts: readonly Partition[], files: FilesView): Promise<void> {
    // The whole disk comes first if it is what the partitions are a part of, and last if it is probably older.
    const [first] = parts;
    const bySize = [...parts].sort((a, b) => Number(isPart(b)) - Number(isPart(a)) || b.size - a.size);
    if (first !== undefined && !isPart(first)) bySize.unshift(first);
    for (const partition of bySize.slice(0, MAX_TRIED)) {
      if (parts.length > 1 && !('volume' in (await findVolume(this.#options.session, partition, this.#over.signal))))
        continue;
      await files.open(parts.indexOf(partition));
      return;
    }
  }

  /**
   * Draws the partitions in proportion to their sizes. Each counts as at least 3 % of the disk, so that small ones stay
   * visible.
   */
  #bar({ parts }: DiskContents): HTMLElement {
    const { size } = this.#options.session;
    return el(
      'ol',
      { class: 'bar', 'aria-label': 'Partitions by size' },
      ...parts.filter(isPart).map((partition) => {
        const { number, type, name, size: bytes } = partition;
        const text = `${number}`;
        const title = `Partition ${number}: ${type}${name === '' ? '' : `, ${name}`}, ${formatBytes(bytes)}`;
        const item = el(
          'li',
          {},
          el(
            'button',
            {
              type: 'button',
              title,
              'aria-label': `${title}: show it on the map`,
              onclick: () => this.#options.onPartition(partition),
            },
            text,
          ),
        );
        item.style.flexGrow = String(Math.max(3, (bytes / size) * 100));
        return item;
      }),
    );
  }
}

/** Whether this is a partition, not the whole disk. */
function isPart({ number }: Partition): boolean {
  return number !== 0;
}
