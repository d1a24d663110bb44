/** The view of one directory: its download as an archive, and files that are put into it. */

import { el, setText } from './dom.ts';
import { collectFolder, type FolderFiles, zipFolder } from './folder-zip.ts';
import { brief } from './problem.ts';
import { chooseSavePlace, needsChoice, saveStream } from './save-stream.ts';
import { formatBytes, formatShare } from './units.ts';
import type { Entry, Volume } from './volumes/volume.ts';

export interface FolderOptions {
  readonly volume: Volume;
  readonly entry: Entry;
  readonly title: string;
  /** The name of the archive, without `.zip`. */
  readonly name: string;
  /** Puts a file into the directory. */
  onPut(
    file: File,
    options: { replace: boolean; signal: AbortSignal; onProgress: (bytes: number) => void },
  ): Promise<'written' | 'exists'>;
  /** Called when the directory has changed. */
  onChanged(): Promise<void>;
}

const SHOWN_PROBLEMS = 20;

export class FolderView {
  readonly element: HTMLElement;
  readonly #options: FolderOptions;
  readonly #state = el('p', { role: 'status', class: 'muted' });
  readonly #more = el('div', {});
  readonly #zip: HTMLButtonElement;
  readonly #put: HTMLButtonElement;
  #running: AbortController | undefined;

  constructor(options: FolderOptions) {
    this.#options = options;
    this.#zip = el('button', { type: 'button', onclick: () => void this.#download() }, 'Download as .zip');
    const picker = el('input', {
      type: 'file',
      multiple: true,
      class: 'hidden',
      tabindex: -1,
      'aria-hidden': 'true',
      onchange: () => void this.put(Array.from(picker.files ?? [])),
    });
    this.#put = el('button', { type: 'button', onclick: () => picker.click() }, 'Put files in …');
    const isWritable = canPut(options.volume);
    this.element = el(
      'div',
      {
        class: 'folder',
        ondragover: (event: DragEvent) => event.preventDefault(),
        ondrop: (event: DragEvent) => {
          event.preventDefault();
          void this.put(Array.from(event.dataTransfer?.files ?? []));
        },
      },
      el('h3', {}, el('bdi', {}, options.title)),
      el('div', { class: 'actions' }, this.#zip, ...(isWritable ? [this.#put, picker] : [])),
      el(
        'p',
        { class: 'muted' },
        isWritable
          ? 'A file that you drop here is written into this volume of your copy.'
          : `Files can be put into FAT volumes, not into ${options.volume.kind}.`,
      ),
      this.#state,
      this.#more,
    );
  }

  /** Puts files into the directory, one after the other. */
  async put(files: readonly File[]): Promise<void> {
    if (this.#running !== undefined || files.length === 0) return;
    if (!canPut(this.#options.volume)) {
      setText(this.#state, `Files can be put into FAT volumes, not into ${this.#options.volume.kind}.`);
      return;
    }
    for (const file of files) if (!(await this.#putOne(file, false))) return;
  }

  async #putOne(file: File, replace: boolean): Promise<boolean> {
    const done = await this.#run(this.#put, async (signal) => {
      const onProgress = (bytes: number): void => setText(this.#put, `Stop · ${formatShare(bytes, file.size)}`);
      const outcome = await this.#options.onPut(file, { replace, signal, onProgress });
      if (outcome === 'exists') {
        this.#askToReplace(file);
        return;
      }
      await this.#options.onChanged();
      setText(this.#state, `${file.name} (${formatBytes(file.size)}) is in the volume and flushed.`);
    });
    return done && this.#more.childElementCount === 0;
  }

  #askToReplace(file: File): void {
    setText(this.#state, `${file.name} exists here.`);
    const replace = el(
      'button',
      {
        type: 'button',
        class: 'danger',
        onclick: () => {
          this.#more.replaceChildren();
          void this.#putOne(file, true);
        },
      },
      'Replace it',
    );
    const keep = el(
      'button',
      {
        type: 'button',
        onclick: () => {
          this.#more.replaceChildren();
          setText(this.#state, '');
        },
      },
      'Keep it',
    );
    this.#more.replaceChildren(el('div', { class: 'actions' }, replace, keep));
    replace.focus();
  }

  /** Collects the files, and saves the archive. A large one needs a second press: only a click may open a dialog. */
  async #download(): Promise<void> {
    const { volume, entry } = this.#options;
    await this.#run(this.#zip, async (signal) => {
      const found = await collectFolder(volume, entry, {
        signal,
        onProgress: ({ files, bytes }) => setText(this.#zip, `Stop · ${count(files)}, ${formatBytes(bytes)}`),
      });
      if (!needsChoice(found.bytes)) return this.#save(found, signal);
      setText(this.#state, `${count(found.files)}, ${formatBytes(found.bytes)}`);
      const choose = el(
        'button',
        {
          type: 'button',
          class: 'primary',
          onclick: () => {
            this.#more.replaceChildren();
            void this.#run(this.#zip, (next) => this.#save(found, next));
          },
        },
        'Choose where to save',
      );
      this.#more.replaceChildren(choose);
      choose.focus();
    });
  }

  async #save(found: FolderFiles, signal: AbortSignal): Promise<void> {
    const name = `${this.#options.name}.zip`;
    const place = await chooseSavePlace(name, found.bytes);
    const onProgress = (bytes: number): void => setText(this.#zip, `Stop · ${formatShare(bytes, found.bytes)}`);
    await saveStream(place, name, zipFolder(this.#options.volume, found, { signal, onProgress }));
    const { files, problems } = found;
    setText(
      this.#state,
      `${name}: ${count(files)}, ${formatBytes(found.bytes)}` +
        (problems.length === 0 ? '.' : `. Left out or cut: ${problems.length}, as the file NOT READ.txt in it says.`),
    );
    if (problems.length > 0)
      this.#more.replaceChildren(
        el(
          'ul',
          { class: 'remark' },
          ...problems.slice(0, SHOWN_PROBLEMS).map((text) => el('li', {}, el('bdi', {}, text))),
        ),
      );
  }

  /** Runs one action; a second press on its button stops it. Returns whether it succeeded. */
  async #run(button: HTMLButtonElement, action: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
    if (this.#running !== undefined) return false;
    const running = (this.#running = new AbortController());
    const onStop = (event: Event): void => {
      event.stopImmediatePropagation();
      running.abort();
    };
    const text = button.textContent ?? '';
    button.addEventListener('click', onStop, { capture: true, signal: running.signal });
    this.#more.replaceChildren();
    setText(this.#state, '');
    let succeeded = false;
    try {
      await action(running.signal);
      succeeded = true;
    } catch (error) {
      const isStop = running.signal.aborted || (error as Error).name === 'AbortError';
      setText(this.#state, isStop ? 'Stopped.' : brief(error));
    }
    running.abort();
    this.#running = undefined;
    setText(button, text);
    return succeeded;
  }
}

/** Whether the page can write files into a volume. */
function canPut({ kind }: Volume): boolean {
  return /^FAT(?:12|16|32)$/.test(kind);
}

function count(entries: FolderFiles['files']): string {
  const files = entries.filter(({ info }) => info !== undefined).length;
  return files === 1 ? '1 file' : `${files.toLocaleString('en')} files`;
}
