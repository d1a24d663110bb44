/** The start view: samples, a field for an image's address or file, the kept copies, and the free storage. */

import { estimateStorage, inspectSource } from '../browser.ts';
import { addressOf } from './address.ts';
import { type CopyRecord, type Image, idOf, nameOf, recordOf, resumeAs, similarCopy, sourceOf } from './copies.ts';
import { copyList } from './copy-list.ts';
import { el, setText } from './dom.ts';
import { type OffersView, type SampleOptions, showOffers } from './offers.ts';
import { emptyImage, explain } from './problem.ts';
import { formatBytes, formatShare } from './units.ts';

/** How the page opens an image. `look`: without a copy. */
export interface HowToOpen extends Partial<SampleOptions> {
  readonly look?: boolean;
}

export interface StartOptions {
  onOpen(image: Image, how?: HowToOpen): void;
}

export class StartView {
  readonly element: HTMLElement;
  readonly #onOpen: StartOptions['onOpen'];
  readonly #field: HTMLInputElement;
  readonly #picker: HTMLInputElement;
  readonly #outcome: HTMLElement;
  readonly #room: HTMLElement;
  #asked = 0;

  constructor({ onOpen }: StartOptions) {
    this.#onOpen = onOpen;
    this.#field = el('input', {
      id: 'image',
      type: 'text',
      inputmode: 'url',
      required: true,
      placeholder: 'example.org/disk.img',
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
    const offers: OffersView = { samples: el('section', { class: 'offers' }), folder: el('section') };
    void showOffers(offers, { sample: onOpen, file: (url) => void this.offer(url) });
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
      offers.samples,
      el('section', { class: 'card drop', 'aria-label': 'Open an image' }, form, this.#outcome),
      copyList({
        onResume: (record) => this.#resume(record),
        onLook: onOpen,
        onRemoved: () => {
          void this.#tellRoom();
          this.focus();
        },
      }),
      offers.folder,
      this.#room,
    );
    void this.#tellRoom();
  }

  focus(): void {
    this.#field.focus();
  }

  /**
   * Shows how much of an image is here, or its size and the free storage, and asks whether to resume or to begin the
   * copy. `isNew`: it is not the image of a similar copy.
   */
  async offer(image: string | File, { isNew = false }: { isNew?: boolean } = {}): Promise<void> {
    const asked = ++this.#asked;
    if (!(image instanceof File)) this.#field.value = image;
    const own = recordOf(await idOf(image));
    const record = own ?? (isNew ? undefined : await similarCopy(image));
    if (record !== undefined) {
      this.#confirmKept(image, record, own !== undefined);
      return;
    }
    this.#outcome.replaceChildren(el('p', { class: 'muted' }, 'Reading the size …'));
    try {
      const { size } = await inspectSource(image);
      if (size === 0) throw emptyImage();
      const room = await estimateStorage();
      if (asked === this.#asked) this.#confirm(image, size, room.quotaBytes - room.usageBytes, room.persisted);
    } catch (error) {
      if (asked === this.#asked) this.#outcome.replaceChildren(...problem(error));
    }
  }

  #resume(record: CopyRecord): void {
    const source = sourceOf(record);
    if (source === undefined) this.askForSource(record);
    else this.#onOpen(source);
  }

  /**
   * Asks for the source of a kept copy: a page cannot reopen a file of the computer by itself, and keeps no secret of
   * an address.
   */
  askForSource(record: CopyRecord): void {
    const { name, url } = record;
    const pick = this.#choice('pick it again', 'primary', () => this.#picker.click());
    const look = this.#choice('Look into what is here', '', () => this.#onOpen(record));
    const why =
      url === undefined
        ? ' is a file on this computer. A page cannot reopen a file by itself: drop it here, or pick it again.'
        : ' came from an address with a password or a signature, which is not kept. Enter the whole address again.';
    if (url !== undefined) this.#field.value = url;
    this.#outcome.replaceChildren(
      el('p', {}, el('strong', {}, el('bdi', {}, name)), why),
      el('div', { class: 'actions' }, ...(url === undefined ? [pick] : []), look),
    );
    if (url !== undefined) this.#field.focus();
  }

  /** `isSame`: the copy is known to be that of the image. */
  #confirmKept(image: string | File, record: CopyRecord, isSame: boolean): void {
    const { id, name, size, syncedBytes } = record;
    const resume = this.#choice(`Continue (${formatShare(syncedBytes, size)} is here)`, 'primary', () => {
      resumeAs(image, id);
      this.#onOpen(image);
    });
    const other = this.#choice('It is another image', '', () => void this.offer(image, { isNew: true }));
    this.#outcome.replaceChildren(
      el('h2', {}, el('bdi', {}, name), ` · ${formatBytes(size)}`),
      el('p', {}, isSame ? 'This browser has a copy of the image.' : 'This browser has a copy of such an image.'),
      el('div', { class: 'actions' }, resume, ...(isSame ? [] : [other])),
    );
    resume.focus();
  }

  #confirm(image: string | File, size: number, free: number, persisted: boolean): void {
    const fits = size <= free;
    const begin = this.#choice('Start the copy', fits ? 'primary' : '', () => this.#onOpen(image));
    const look = this.#choice('Look without a copy', fits ? '' : 'primary', () => this.#onOpen(image, { look: true }));
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
      el('div', { class: 'actions' }, ...(fits ? [begin, look] : [look, begin])),
      el('p', { class: 'muted' }, 'Without a copy, files can be opened and the disk boots, but nothing is kept.'),
    );
    (fits ? begin : look).focus();
  }

  #choice(text: string, kind: string, onclick: () => void): HTMLButtonElement {
    return el('button', { type: 'button', class: kind, onclick }, text);
  }

  #submit(event: SubmitEvent): void {
    event.preventDefault();
    const url = addressOf(this.#field.value, location.href);
    if (url !== undefined) void this.offer(url);
    else this.#outcome.replaceChildren(el('p', { class: 'remark' }, 'This is not the address of a file on a server.'));
  }

  #picked(): void {
    const file = this.#picker.files?.[0];
    if (file !== undefined) void this.offer(file);
  }

  async #tellRoom(): Promise<void> {
    try {
      const { usageBytes, quotaBytes, persisted } = await estimateStorage();
      const room = `${formatBytes(quotaBytes - usageBytes)} free, ${formatBytes(usageBytes)} used`;
      if (quotaBytes > 0) setText(this.#room, `Space in this browser: ${room}${persisted ? ', persistent' : ''}.`);
    } catch (error) {
      setText(this.#room, explain(error).text);
    }
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
