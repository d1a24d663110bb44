/** The tree of a disk's partitions and files, and the field that filters it, searches it, and goes to a path. */

import { el, setText } from './dom.ts';
import type { FileView } from './file-view.ts';
import { FolderView } from './folder-view.ts';
import { compareNames } from './natural-order.ts';
import { brief } from './problem.ts';
import { putIntoVolume } from './put-file.ts';
import type { Session } from './session.ts';
import { Tree, type TreeItem } from './tree.ts';
import { formatBytes, formatDate } from './units.ts';
import { findVolume } from './volumes/disk.ts';
import type { Partition } from './volumes/partition-table.ts';
import { resolvePath } from './volumes/paths.ts';
import type { Entry, Volume } from './volumes/volume.ts';

export interface FilesOptions {
  readonly session: Session;
  readonly parts: readonly Partition[];
  readonly file: FileView;
  readonly signal: AbortSignal;
}

/** A search reads at most this many directories before it asks. */
const SEARCHED_DIRECTORIES = 1000;

/** A directory of a volume, and the way to it in the tree. */
interface Place {
  readonly partition: Partition;
  readonly volume: Volume;
  readonly entry: Entry;
  /** The names of the directories from the root to this one. */
  readonly path: readonly string[];
}

export class FilesView {
  readonly element: HTMLElement;
  readonly #options: FilesOptions;
  readonly #tree: Tree;
  readonly #field: HTMLInputElement;
  readonly #button: HTMLButtonElement;
  readonly #state = el('span', { class: 'muted', role: 'status' });
  /** The volumes that were opened, by the number of their partition. */
  readonly #volumes = new Map<number, Volume>();
  #searching: AbortController | undefined;

  constructor(options: FilesOptions) {
    this.#options = options;
    this.#tree = new Tree(
      'Partitions and files',
      options.parts.map((partition) => this.#partition(partition)),
    );
    this.#field = el('input', {
      id: 'find',
      type: 'search',
      placeholder: 'a name, or a path: /etc/fstab',
      autocomplete: 'off',
      spellcheck: 'false',
      oninput: () => this.#filter(),
    });
    this.#button = el('button', { class: 'small' }, 'Search');
    const form = el(
      'form',
      { class: 'find', role: 'search', onsubmit: (event: SubmitEvent) => this.#submit(event) },
      el('label', { for: 'find' }, 'Find'),
      this.#field,
      this.#button,
      this.#state,
    );
    this.element = el('div', { class: 'files' }, form, this.#tree.element);
  }

  /** Opens the partition at `index`, unless the user has opened or closed it. */
  open(index: number): Promise<void> {
    return this.#tree.open(index);
  }

  #filter(): void {
    const text = this.#field.value;
    this.#searching?.abort();
    const isPath = text.startsWith('/');
    setText(this.#button, isPath ? 'Go' : 'Search');
    const count = this.#tree.filter(isPath ? '' : text);
    setText(this.#state, text === '' || isPath ? '' : `${found(count)} in what was opened`);
  }

  #submit(event: SubmitEvent): void {
    event.preventDefault();
    const text = this.#field.value.trim();
    if (this.#searching !== undefined) this.#searching.abort();
    else if (text !== '') void (text.startsWith('/') ? this.#goTo(text) : this.#search(text));
  }

  /** Reads directories that were not opened, until all were read, the bound is reached, or the user stops it. */
  async #search(text: string): Promise<void> {
    const searching = (this.#searching = new AbortController());
    setText(this.#button, 'Stop');
    const { loaded, isComplete } = await this.#tree.search({
      limit: SEARCHED_DIRECTORIES,
      signal: AbortSignal.any([searching.signal, this.#options.signal]),
      onProgress: (count) => setText(this.#state, `${directories(count)} read …`),
    });
    this.#searching = undefined;
    if (this.#field.value.trim() !== text) return;
    const rest = isComplete ? 'all are searched' : 'search again for more';
    setText(this.#state, `${found(this.#tree.filter(text))}; ${directories(loaded)} read, ${rest}`);
    setText(this.#button, 'Search');
  }

  /** Goes to a path in the first volume that has it. Volumes that are open come first. */
  async #goTo(path: string): Promise<void> {
    setText(this.#state, 'Looking …');
    const isOpen = ({ number }: Partition): boolean => this.#volumes.has(number);
    const parts = [...this.#options.parts].sort((a, b) => Number(isOpen(b)) - Number(isOpen(a)));
    let missing = 'no volume here can be browsed';
    for (const partition of parts) {
      try {
        const volume = await this.#open(partition);
        if (typeof volume === 'string') continue;
        const result = await resolvePath(volume, path, this.#options.signal);
        if ('entries' in result) {
          setText(this.#state, '');
          await this.#tree.reveal([titleOf(partition), ...result.entries.map(({ name }) => visible(name))]);
          return;
        }
        if (isOpen(partition) || parts.length === 1) missing = result.missing;
      } catch (error) {
        missing = brief(error);
      }
    }
    setText(this.#state, visible(missing));
  }

  /** Opens the volume of a partition. Returns the reason if it cannot be browsed. */
  async #open(partition: Partition): Promise<Volume | string> {
    const { session, signal } = this.#options;
    const open = this.#volumes.get(partition.number);
    if (open !== undefined) return open;
    const result = await findVolume(session, partition, signal);
    if (!('volume' in result)) return result.reason;
    this.#volumes.set(partition.number, result.volume);
    return result.volume;
  }

  #partition(partition: Partition): TreeItem {
    const { number, type, name, size } = partition;
    const note = [name === '' || number === 0 ? '' : type, formatBytes(size)].filter((part) => part !== '').join(' · ');
    const place = async (): Promise<Place | undefined> => {
      const volume = await this.#open(partition);
      return typeof volume === 'string' ? undefined : { partition, volume, entry: volume.root, path: [] };
    };
    return {
      text: titleOf(partition),
      note,
      icon: 'disk',
      onChoose: () =>
        void place().then(
          (own) => own && this.#showFolder(own),
          () => undefined,
        ),
      onDrop: (files) => void place().then((own) => own && this.#showFolder(own).put(files)),
      children: async () => {
        const volume = await this.#open(partition);
        if (typeof volume === 'string') return { items: [], remark: volume };
        const label = volume.label === '' ? '' : ` “${volume.label}”`;
        const about = `${volume.kind}${label}${volume.remark === undefined ? '' : `, ${volume.remark}`}`;
        const { items, remark } = await this.#directory(partition, volume.root, []);
        return { items, remark: remark === undefined ? about : `${about}; ${remark}` };
      },
    };
  }

  async #directory(
    partition: Partition,
    directory: Entry,
    path: readonly string[],
  ): Promise<{ items: TreeItem[]; remark: string | undefined }> {
    // A file that was put in has renewed the volume.
    const volume = this.#volumes.get(partition.number)!;
    const { entries, cut, remark } = await volume.list(directory, this.#options.signal);
    const sorted = [...entries].sort(
      (a, b) => Number(b.kind === 'directory') - Number(a.kind === 'directory') || compareNames(a.name, b.name),
    );
    const items = sorted.map((entry) => this.#entry({ partition, volume, entry, path: [...path, entry.name] }));
    const remarks = [...(cut ? [`only the first ${entries.length} are shown`] : []), ...(remark ? [remark] : [])];
    return { items, remark: remarks.length === 0 ? undefined : remarks.join('; ') };
  }

  #entry(place: Place): TreeItem {
    const { partition, volume, entry, path } = place;
    const base = { text: visible(entry.name), icon: entry.kind };
    if (entry.kind === 'directory') {
      return {
        ...base,
        ...(entry.modifiedMs === undefined ? {} : { note: formatDate(entry.modifiedMs) }),
        children: () => this.#directory(partition, entry, path),
        onChoose: () => void this.#showFolder(place),
        onDrop: (files) => void this.#showFolder(place).put(files),
      };
    }
    const shown = { volume, entry, path: visible(`/${path.join('/')}`), volumeStart: partition.start };
    return {
      ...base,
      note:
        entry.size === undefined
          ? async () => noteOf(await volume.look(entry, this.#options.signal))
          : noteOf({ size: entry.size, modifiedMs: entry.modifiedMs }),
      onChoose: () => void this.#options.file.show(shown),
    };
  }

  #showFolder(place: Place): FolderView {
    const { partition, entry, path } = place;
    const { session } = this.#options;
    const volume = this.#volumes.get(partition.number) ?? place.volume;
    const folder = new FolderView({
      volume,
      entry,
      title: visible(`/${path.join('/')}`),
      name: visible(path.at(-1) ?? (volume.label || session.name)),
      onPut: (file, options) => putIntoVolume(session, { partition, path }, file, options),
      onChanged: () => this.#renew(partition, path),
    });
    this.#options.file.showOther(folder.element);
    return folder;
  }

  /** Reads a changed directory again. */
  async #renew(partition: Partition, path: readonly string[]): Promise<void> {
    this.#volumes.delete(partition.number);
    await this.#open(partition);
    await this.#tree.reload([titleOf(partition), ...path.map(visible)]);
  }
}

function titleOf({ number, type, name }: Partition): string {
  return number === 0 ? 'The whole disk' : `${number} · ${name === '' ? type : name}`;
}

function noteOf({
  size,
  modifiedMs,
  linkTarget,
}: {
  size: number;
  modifiedMs: number | undefined;
  linkTarget?: string;
}): string {
  if (linkTarget !== undefined) return `→ ${visible(linkTarget.slice(0, 80))}`;
  return modifiedMs === undefined ? formatBytes(size) : `${formatBytes(size)} · ${formatDate(modifiedMs)}`;
}

function found(count: number): string {
  return `${count === 0 ? 'none' : count.toLocaleString('en')} found`;
}

function directories(count: number): string {
  return count === 1 ? '1 directory' : `${count.toLocaleString('en')} directories`;
}

/** Replaces control characters: a name in the image must not change how the page shows its text. */
function visible(name: string): string {
  return name.replaceAll(/[\p{Cc}\p{Bidi_Control}]/gu, '\ufffd');
}
