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
      el('h1', {}, 'Use a disk image while it is copied.'),
      el(
        'p',
        { class: 'lead' },
        'Open an image and browse its files at once. ' +
          'The copy is kept in this browser and resumes after a reload or a crash.',
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
    this.#outcome.replaceChildren(el('p', { class: 'muted' }, 'Reading the size …'));
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
        ' is a file on this computer. A page cannot reopen a file by itself: drop it here, or ',
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
      ? `Free space in this browser: ${formatBytes(free)}.`
      : `Free space in this browser: only ${formatBytes(free)}. The copy will probably not fit.`;
    const kept = persisted
      ? 'The browser keeps the copy until you remove it.'
      : 'If the disk is full, the browser may remove the copy. This page asks it not to.';
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
        `Space in this browser: ${formatBytes(quotaBytes - usageBytes)} free, ` +
          `${formatBytes(usageBytes)} used${persisted ? ', persistent' : ''}.`,
      );
  }

  #copies(): HTMLElement {
    const records = listCopies();
    if (records.length === 0) return el('div');
    const list = el('ul', { class: 'copies' }, ...records.map((record) => this.#copy(record)));
    return el(
      'section',
      { 'aria-labelledby': 'copies-title' },
      el('h2', { id: 'copies-title' }, 'Copies in this browser'),
      list,
    );
  }

  #copy(record: CopyRecord): HTMLElement {
    const { id, name, url, size, syncedBytes } = record;
    const outcome = el('span', { role: 'status', class: 'remark' });
    const forget = async (): Promise<void> => {
      // Forgetting deletes the copy, so the button needs two presses.
      if (forgetButton.textContent === 'Remove') {
        setText(forgetButton, 'Really remove?');
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
        setText(forgetButton, 'Remove');
      }
    };
    const forgetButton = el(
      'button',
      { type: 'button', class: 'quiet', 'aria-describedby': `name-${id}`, onclick: () => void forget() },
      'Remove',
    );
    const item = el(
      'li',
      { class: 'card' },
      el(
        'div',
        {},
        el('strong', { id: `name-${id}` }, el('bdi', {}, name)),
        el('small', {}, url === undefined ? 'a file on this computer' : new URL(url).host),
      ),
      el('span', { class: 'muted' }, `${formatShare(syncedBytes, size)} of ${formatBytes(size)}`),
      outcome,
      el(
        'button',
        {
          type: 'button',
          'aria-label': `Resume ${name}`,
          onclick: () => (url === undefined ? this.askForFile(record) : this.#onOpen(url)),
        },
        'Resume',
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
