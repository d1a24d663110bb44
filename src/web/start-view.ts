/** The start view: a field for an image's address or file, the free storage, and the kept copies. */

import { estimateStorage, inspectSource, removeCopy } from '../browser.ts';
import { type CopyRecord, dropRecord, type Image, listCopies, nameOf, placeOf } from './copies.ts';
import { el, setText } from './dom.ts';
import { explain } from './problem.ts';
import { formatBytes, formatShare } from './units.ts';

export interface StartOptions {
  onOpen(image: Image): void;
}

export class StartView {
  readonly element: HTMLElement;
  readonly #onOpen: (image: Image) => void;
  readonly #field: HTMLInputElement;
  readonly #picker: HTMLInputElement;
  readonly #outcome: HTMLElement;
  readonly #room: HTMLElement;
  #asked = 0;

  constructor({ onOpen }: StartOptions) {
    this.#onOpen = onOpen;
    this.#field = el('input', {
      id: 'image',
      type: 'url',
      required: true,
      placeholder: 'https://example.org/disk.img',
      autocomplete: 'url',
      spellcheck: 'false',
    });
    this.#picker = el('input', {
      type: 'file',
      class: 'hidden',
      tabindex: -1,
      'aria-hidden': 'true',
      onchange: () => this.#picked(),
    });
    this.#outcome = el('div', { role: 'status', class: 'outcome' });
    this.#room = el('p', { class: 'muted' });
    const form = el(
      'form',
      { class: 'open', onsubmit: (event: SubmitEvent) => this.#submit(event) },
      el('label', { for: 'image' }, 'Address of a disk image'),
      el('div', { class: 'field' }, this.#field, el('button', { class: 'primary' }, 'Open')),
      el(
        'p',
        { class: 'or' },
        'or drop a file here, or ',
        el('button', { type: 'button', class: 'link', onclick: () => this.#picker.click() }, 'pick one'),
        this.#picker,
      ),
    );
    this.element = el(
      'main',
      { class: 'start' },
      el('h1', {}, 'Use a disk image before it has arrived.'),
      el(
        'p',
        { class: 'lead' },
        'Open it, browse its files, watch the blocks come in. The copy is kept in this browser: reload, or kill the tab, and it goes on where it was.',
      ),
      el('section', { class: 'card drop', 'aria-label': 'Open an image' }, form, this.#outcome),
      this.#room,
      this.#copies(),
    );
    void this.#tellRoom();
  }

  focus(): void {
    this.#field.focus();
  }

  /** Shows the size of an image and the free storage, and asks whether to begin the copy. */
  async offer(image: Image): Promise<void> {
    const asked = ++this.#asked;
    if (!(image instanceof File)) this.#field.value = image;
    this.#outcome.replaceChildren(el('p', { class: 'muted' }, 'Asking for its size …'));
    try {
      const { size } = await inspectSource(image);
      const room = await estimateStorage();
      if (asked === this.#asked) this.#confirm(image, size, room.quotaBytes - room.usageBytes, room.persisted);
    } catch (error) {
      if (asked === this.#asked) this.#outcome.replaceChildren(...problem(error));
    }
  }

  /** Asks for the file of a kept copy: a page cannot reopen a file of the computer by itself. */
  askForFile(record: CopyRecord): void {
    this.#outcome.replaceChildren(
      el(
        'p',
        {},
        el('strong', {}, record.name),
        ' was a file of this computer. A page may not open it again by itself: drop it here, or ',
      ),
      el('button', { type: 'button', class: 'primary', onclick: () => this.#picker.click() }, 'pick it again'),
    );
  }

  #confirm(image: Image, size: number, free: number, persisted: boolean): void {
    const begin = el(
      'button',
      { type: 'button', class: 'primary', onclick: () => this.#onOpen(image) },
      'Start the copy',
    );
    const fits = size <= free;
    const room = fits
      ? `This browser has room for ${formatBytes(free)}.`
      : `This browser says that it has room for ${formatBytes(free)} only: the copy will probably not fit.`;
    const kept = persisted
      ? 'What is kept here stays until you remove it.'
      : 'If the disk runs full, the browser may remove what is kept here; it will be asked not to.';
    this.#outcome.replaceChildren(
      el('h2', {}, el('bdi', {}, nameOf(image)), ` · ${formatBytes(size)}`),
      el('p', { class: fits ? '' : 'remark' }, room),
      el('p', { class: 'muted' }, kept),
      begin,
    );
    begin.focus();
  }

  #submit(event: SubmitEvent): void {
    event.preventDefault();
    const url = this.#field.value.trim();
    if (URL.canParse(url)) void this.offer(new URL(url).href);
  }

  #picked(): void {
    const file = this.#picker.files?.[0];
    if (file !== undefined) void this.offer(file);
  }

  async #tellRoom(): Promise<void> {
    const { usageBytes, quotaBytes, persisted } = await estimateStorage();
    if (quotaBytes > 0)
      setText(
        this.#room,
        `Room in this browser: ${formatBytes(quotaBytes - usageBytes)} free, ${formatBytes(usageBytes)} used${persisted ? ', kept for good' : ''}.`,
      );
  }

  #copies(): HTMLElement {
    const records = listCopies();
    if (records.length === 0) return el('div');
    const list = el('ul', { class: 'copies' }, ...records.map((record) => this.#copy(record)));
    return el(
      'section',
      { 'aria-labelledby': 'copies-title' },
      el('h2', { id: 'copies-title' }, 'Kept in this browser'),
      list,
    );
  }

  #copy(record: CopyRecord): HTMLElement {
    const { id, name, url, size, syncedBytes } = record;
    const outcome = el('span', { role: 'status', class: 'remark' });
    const forget = async (): Promise<void> => {
      // Forgetting deletes the copy, so the button needs two presses.
      if (forgetButton.textContent === 'Forget') {
        setText(forgetButton, 'Really forget?');
        return;
      }
      try {
        await removeCopy(placeOf(id));
        dropRecord(id);
        item.remove();
        await this.#tellRoom();
        this.focus();
      } catch (error) {
        setText(outcome, explain(error).title);
        setText(forgetButton, 'Forget');
      }
    };
    const forgetButton = el(
      'button',
      { type: 'button', class: 'quiet', 'aria-describedby': `name-${id}`, onclick: () => void forget() },
      'Forget',
    );
    const item = el(
      'li',
      { class: 'card' },
      el(
        'div',
        {},
        el('strong', { id: `name-${id}` }, el('bdi', {}, name)),
        el('small', {}, url === undefined ? 'a file of this computer' : new URL(url).host),
      ),
      el('span', { class: 'muted' }, `${formatShare(syncedBytes, size)} of ${formatBytes(size)}`),
      outcome,
      el(
        'button',
        {
          type: 'button',
          'aria-label': `Go on with ${name}`,
          onclick: () => (url === undefined ? this.askForFile(record) : this.#onOpen(url)),
        },
        'Go on',
      ),
      forgetButton,
    );
    return item;
  }
}

function problem(error: unknown): HTMLElement[] {
  const { title, text, detail } = explain(error);
  return [
    el('h2', {}, title),
    el('p', {}, text),
    ...(detail === undefined ? [] : [el('p', { class: 'muted' }, detail)]),
  ];
}
