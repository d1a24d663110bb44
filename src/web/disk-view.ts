/** The view of an open disk: progress, the controls of the copy, and the views of the disk's content. */

import { isCodError } from '../browser.ts';
import { ContentsView } from './contents-view.ts';
import { originOf } from './copies.ts';
import { CurvesView } from './curves.ts';
import { el, setText } from './dom.ts';
import { HexView } from './hex-view.ts';
import { MapView } from './map-view.ts';
import { PcView, pcFolder } from './pc-view.ts';
import { explain, explainWait, type Remedy } from './problem.ts';
import { problemCard } from './problem-card.ts';
import type { Session, Trouble } from './session.ts';
import { formatBytes, formatDuration, formatShare } from './units.ts';

export interface DiskOptions {
  readonly session: Session;
  /** Leaves the disk and keeps the copy. */
  onLeave(): void;
  /** Removes the copy. */
  onForget(): void;
  /** Asks for the source of a copy that was opened without it. */
  onSource(): void;
  /** Opens the disk again, as the remedy says. */
  onRemedy(remedy: Remedy): void;
}

/** The first offset that the hex view shows. The table of an MBR begins shortly behind it, and a GPT follows. */
const BOOT_TABLE_AT = 0x1b0;

const RATES: readonly (readonly [string, number | undefined])[] = [
  ['no limit', undefined],
  ['256 KiB/s', 2 ** 18],
  ['1 MiB/s', 2 ** 20],
  ['4 MiB/s', 2 ** 22],
  ['16 MiB/s', 2 ** 24],
  ['64 MiB/s', 2 ** 26],
];

export class DiskView {
  readonly element: HTMLElement;
  readonly #options: DiskOptions;
  readonly #share = el('strong', { class: 'share' });
  readonly #state = el('span', { class: 'state' });
  readonly #role = el('span', { class: 'badge' });
  readonly #progress = el('progress', { max: 1, 'aria-label': 'Copied share of the disk' });
  readonly #rest: HTMLButtonElement;
  readonly #rate: HTMLSelectElement;
  readonly #download: HTMLButtonElement;
  readonly #problem = el('div', { role: 'alert' });
  readonly #waiting = el('div', { role: 'status' });
  readonly #countdown = el('span', { role: 'timer' });
  readonly #contents: ContentsView;
  readonly #pc: PcView | undefined;
  readonly #title: HTMLElement;
  /** True after the background copy has failed, or after a read has found that the source changed. */
  #stopped = false;
  #trouble: Trouble | undefined;

  constructor(options: DiskOptions) {
    const { session } = (this.#options = options);
    const hex = new HexView(session);
    const bytes = folded('Bytes', hex.element);
    const showBytes = (offset: number): void => {
      bytes.open = true;
      void hex.show(offset);
      hex.element.scrollIntoView({
        block: 'nearest',
        behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth',
      });
    };
    const map = new MapView({ session, onChoose: showBytes });
    const curves = new CurvesView(session);
    this.#contents = new ContentsView({
      session,
      onPartition: ({ start, size }) => map.showBytes(start, start + size),
      onFile: (ranges) => map.mark(ranges),
      onShowBytes: showBytes,
    });
    const pc = pcFolder();
    this.#pc = pc === undefined ? undefined : new PcView(session, pc);
    this.#rest = el('button', { type: 'button', onclick: () => this.#toggleRest() });
    this.#rate = el(
      'select',
      { id: 'rate', onchange: () => session.setRate(RATES[this.#rate.selectedIndex]?.[1]) },
      ...RATES.map(([name, rate]) => el('option', { selected: rate === session.rate }, name)),
    );
    this.#download = el('button', { type: 'button', onclick: () => void this.#saveImage() }, 'Download the image');
    this.#title = el('h1', { tabindex: -1 }, el('bdi', {}, session.name));
    this.element = el(
      'main',
      { class: 'disk' },
      this.#summary(),
      this.#problem,
      this.#waiting,
      this.#contents.element,
      ...(this.#pc === undefined ? [] : [this.#pc.element]),
      map.element,
      folded('Speed', curves.element),
      bytes,
    );
    session.onTick(() => this.#tell());
    session.device.onRoleChange = () => this.#tell();
    session.device.hydrated.then(
      () => this.#tell(),
      (error: unknown) => {
        if (!isCodError(error, 'COD_CLOSED')) this.#stop(error);
      },
    );
    session.onStopped = (error) => this.#stop(error);
    session.onTrouble = (trouble) => this.#wait(trouble);
    this.#tell();
    // The bytes are read when the user opens their view.
    bytes.addEventListener('toggle', () => void (bytes.open && !hex.isShown && hex.show(BOOT_TABLE_AT)));
  }

  focus(): void {
    this.#title.focus();
  }

  /** Starts a PC from the disk, if this page has one. */
  async boot(): Promise<void> {
    await this.#pc?.boot();
  }

  /** Stops the views. The caller owns the session and closes it. */
  close(): void {
    this.#contents.close();
    this.#pc?.close();
  }

  #summary(): HTMLElement {
    const { session, onLeave } = this.#options;
    const title = el(
      'div',
      { class: 'title' },
      el('button', { type: 'button', class: 'link', onclick: () => onLeave() }, '← All images'),
      this.#title,
      el('p', { class: 'muted' }, `${formatBytes(session.size)} · ${originOf(session.image)}`),
    );
    const figures = el('div', { class: 'figures' }, this.#share, el('div', {}, this.#state, this.#role));
    return el(
      'section',
      { class: 'summary', 'aria-label': session.isKept ? 'The copy' : 'The disk' },
      title,
      figures,
      ...(session.isKept ? [this.#progress] : []),
      el('div', { class: 'actions' }, this.#bootButton(), ...(session.isKept ? this.#copyActions() : [this.#copyIt()])),
    );
  }

  #bootButton(): HTMLElement | undefined {
    const pc = this.#pc;
    if (pc === undefined) return undefined;
    return el('button', { type: 'button', class: 'primary', onclick: () => void pc.boot() }, 'Boot it');
  }

  #copyActions(): HTMLElement[] {
    const forget = this.#forgetDialog();
    return [
      ...(this.#options.session.isWithoutSource
        ? this.#goOn()
        : [this.#rest, el('label', { for: 'rate' }, 'Limit'), this.#rate]),
      this.#download,
      el('button', { type: 'button', class: 'quiet', onclick: () => forget.showModal() }, 'Remove …'),
      forget,
    ];
  }

  /** Continues a copy that was opened without its source. */
  #goOn(): HTMLElement[] {
    const { session, onSource } = this.#options;
    return session.isComplete ? [] : [el('button', { type: 'button', onclick: onSource }, 'Continue the copy')];
  }

  #copyIt(): HTMLElement {
    return el('button', { type: 'button', onclick: () => this.#options.onRemedy('again') }, 'Copy it instead');
  }

  #toggleRest(): void {
    this.#options.session.rest(!this.#options.session.resting);
    this.#tell();
  }

  #tell(): void {
    const { session } = this.#options;
    const { device, size, syncedBytes, isComplete, bytesPerSecond, resting } = session;
    this.#tellWait();
    if (!session.isKept) {
      setText(this.#share, 'Look only');
      setText(this.#state, `${formatBytes(session.status.sourceBytes)} read · nothing is kept in this browser`);
      document.title = session.name;
      return;
    }
    setText(this.#share, formatShare(syncedBytes, size));
    this.#progress.value = syncedBytes / size;
    const left = size - syncedBytes;
    const speed = bytesPerSecond > 0 ? `${formatBytes(bytesPerSecond)}/s` : 'waiting';
    const duration = formatDuration(left / bytesPerSecond);
    const going = resting
      ? 'Paused: only what you open is fetched'
      : `${speed}${duration === '' ? '' : `, ${duration} left`}`;
    const rest = session.isWithoutSource ? 'Opened without its source' : this.#stopped ? 'Stopped' : going;
    setText(this.#state, isComplete ? 'The copy is complete' : `${formatBytes(syncedBytes)} copied · ${rest}`);
    setText(this.#role, device.role === 'guest' ? 'shared: another tab runs the copy' : '');
    setText(this.#rest, resting ? 'Resume' : 'Pause');
    this.#rest.disabled = isComplete || this.#stopped;
    this.#rate.disabled = isComplete || this.#stopped || resting;
    setText(this.#download, isComplete ? 'Download the image' : 'Download …');
    document.title = `${isComplete ? '✓' : this.#stopped ? '⚠' : formatShare(syncedBytes, size)} ${session.name}`;
  }

  #stop(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#wait(undefined);
    this.#complain(error);
    this.#tell();
  }

  /** Tells that the copy tries again by itself, and when. */
  #wait(trouble: Trouble | undefined): void {
    this.#trouble = this.#stopped ? undefined : trouble;
    if (this.#trouble === undefined) {
      this.#waiting.replaceChildren();
      return;
    }
    const { title, text } = explainWait(this.#trouble.error);
    this.#waiting.replaceChildren(
      el(
        'section',
        { class: 'card problem' },
        el('h2', {}, `${title} `, this.#countdown),
        el('p', {}, text),
        el('p', { class: 'muted' }, this.#trouble.error.message),
      ),
    );
    this.#tellWait();
  }

  #tellWait(): void {
    if (this.#trouble === undefined) return;
    const seconds = Math.ceil((this.#trouble.againAtMs - performance.now()) / 1000);
    setText(this.#countdown, seconds > 0 ? `Asking again in ${seconds} s.` : 'Asking again …');
  }

  #complain(error: unknown): void {
    const note = isCodError(error, 'COD_SOURCE_CHANGED')
      ? 'Until you leave this page, copied files can be opened and downloaded, and your writes are kept.'
      : undefined;
    const { session, onRemedy } = this.#options;
    const problem = explain(error, { isKept: session.isKept && !session.isWithoutSource });
    const remedy = (chosen: Remedy): void => (chosen === 'download' ? void this.#saveImage() : onRemedy(chosen));
    this.#problem.replaceChildren(problemCard(problem, remedy, note));
  }

  async #saveImage(): Promise<void> {
    const { session } = this.#options;
    try {
      await session.device.flush();
      const { downloadCopy } = await import('./download.ts');
      await downloadCopy(session);
    } catch (error) {
      this.#complain(error);
    }
  }

  #forgetDialog(): HTMLDialogElement {
    const dialog: HTMLDialogElement = el(
      'dialog',
      { 'aria-labelledby': 'forget-title', onclose: () => dialog.returnValue === 'forget' && this.#options.onForget() },
      el(
        'form',
        { method: 'dialog' },
        el('h2', { id: 'forget-title' }, 'Remove this copy?'),
        el('p', {}, 'The copy and your writes are removed from this browser. The image at its source does not change.'),
        el(
          'div',
          { class: 'actions' },
          el('button', { value: 'keep', autofocus: true }, 'Keep it'),
          el('button', { value: 'forget', class: 'danger' }, 'Remove it'),
        ),
      ),
    );
    return dialog;
  }
}

/** A view that is rarely needed: closed until the user opens it. */
function folded(title: string, content: HTMLElement): HTMLDetailsElement {
  return el('details', { class: 'folded' }, el('summary', {}, el('h2', {}, title)), content);
}
