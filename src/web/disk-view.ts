/** The view of an open disk: progress, the controls of the copy, and the views of the disk's content. */

import { copyAsFile, isCodError } from '../browser.ts';
import { ContentsView } from './contents-view.ts';
import { placeOf } from './copies.ts';
import { CurvesView } from './curves.ts';
import { el, saveBlob, setText } from './dom.ts';
import { HexView } from './hex-view.ts';
import { MapView } from './map-view.ts';
import { PcView, pcFolder } from './pc-view.ts';
import { explain, type Problem } from './problem.ts';
import type { Session } from './session.ts';
import { formatBytes, formatDuration, formatShare } from './units.ts';

export interface DiskOptions {
  readonly session: Session;
  /** Leaves the disk and keeps the copy. */
  onLeave(): void;
  /** Removes the copy. */
  onForget(): void;
  /** Opens the disk again. `anew`: removes the copy first. */
  onReopen(options: { anew: boolean }): void;
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
  readonly #contents: ContentsView;
  readonly #pc: PcView | undefined;
  readonly #title: HTMLElement;
  /** True after the background copy has failed, or after a read has found that the source changed. */
  #stopped = false;

  constructor(options: DiskOptions) {
    const { session } = (this.#options = options);
    const hex = new HexView(session);
    const showBytes = (offset: number): void => {
      void hex.show(offset);
      hex.element.scrollIntoView({
        block: 'nearest',
        behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth',
      });
    };
    const map = new MapView({ session, onChoose: (offset) => void hex.show(offset) });
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
    const forget = this.#forgetDialog();
    this.#title = el('h1', { tabindex: -1 }, el('bdi', {}, session.name));
    this.element = el(
      'main',
      { class: 'disk' },
      el(
        'section',
        { class: 'summary', 'aria-label': 'The copy' },
        el(
          'div',
          { class: 'title' },
          el('button', { type: 'button', class: 'link', onclick: () => options.onLeave() }, '← All images'),
          this.#title,
          el(
            'p',
            { class: 'muted' },
            `${formatBytes(session.size)} · ` +
              (session.image instanceof File ? 'a file on this computer' : new URL(session.image).host),
          ),
        ),
        el('div', { class: 'figures' }, this.#share, el('div', {}, this.#state, this.#role)),
        this.#progress,
        el(
          'div',
          { class: 'actions' },
          this.#rest,
          el('label', { for: 'rate' }, 'Limit'),
          this.#rate,
          this.#download,
          el('button', { type: 'button', class: 'quiet', onclick: () => forget.showModal() }, 'Remove …'),
        ),
      ),
      this.#problem,
      map.element,
      curves.element,
      this.#contents.element,
      hex.element,
      ...(this.#pc === undefined ? [] : [this.#pc.element]),
      forget,
    );
    session.onTick(() => this.#tell());
    session.device.onRoleChange = () => this.#tell();
    session.device.hydrated.then(
      () => this.#tell(),
      (error: unknown) => {
        if (!isCodError(error, 'COD_CLOSED')) this.#stop(error);
      },
    );
    session.onSourceChanged = (error) => this.#stop(error);
    session.onTrouble = (error) => {
      if (this.#stopped) return;
      if (error === undefined) this.#problem.replaceChildren();
      else this.#complain(error);
    };
    this.#tell();
    void hex.show(BOOT_TABLE_AT);
  }

  focus(): void {
    this.#title.focus();
  }

  /** Stops the views. The caller owns the session and closes it. */
  close(): void {
    this.#contents.close();
    this.#pc?.close();
  }

  #toggleRest(): void {
    this.#options.session.rest(!this.#options.session.resting);
    this.#tell();
  }

  #tell(): void {
    const { session } = this.#options;
    const { device, size, syncedBytes, isComplete, bytesPerSecond, resting } = session;
    setText(this.#share, formatShare(syncedBytes, size));
    this.#progress.value = syncedBytes / size;
    const left = size - syncedBytes;
    const speed = bytesPerSecond > 0 ? `${formatBytes(bytesPerSecond)}/s` : 'waiting';
    const duration = formatDuration(left / bytesPerSecond);
    const going = resting
      ? 'Paused: only what you open is fetched'
      : `${speed}${duration === '' ? '' : `, ${duration} left`}`;
    setText(
      this.#state,
      isComplete ? 'The copy is complete' : `${formatBytes(syncedBytes)} copied · ${this.#stopped ? 'Stopped' : going}`,
    );
    setText(this.#role, device.role === 'guest' ? 'shared: another tab runs the copy' : '');
    setText(this.#rest, resting ? 'Resume' : 'Pause');
    this.#rest.disabled = isComplete || this.#stopped;
    this.#rate.disabled = isComplete || this.#stopped || resting;
    this.#download.disabled = !isComplete;
    this.#download.title = isComplete ? '' : 'Available when the copy is complete';
    document.title = `${isComplete ? '✓' : this.#stopped ? '⚠' : formatShare(syncedBytes, size)} ${session.name}`;
  }

  #stop(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#complain(error);
    this.#tell();
  }

  #complain(error: unknown): void {
    const note = isCodError(error, 'COD_SOURCE_CHANGED')
      ? 'Until you leave this page, copied files can be opened and downloaded, and your writes are kept.'
      : undefined;
    this.#problem.replaceChildren(problemCard(explain(error), (anew) => this.#options.onReopen({ anew }), note));
  }

  async #saveImage(): Promise<void> {
    const { session } = this.#options;
    try {
      await session.device.flush();
      // The copy is the disk, whatever it was packed in.
      saveBlob(await copyAsFile(placeOf(session.id)), session.name.replace(/\.qcow2$/i, '.raw'));
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

/**
 * Makes a card that shows a problem and its remedies. `Start over` deletes the copy, so that button needs two presses.
 */
export function problemCard(
  { title, text, detail, remedies }: Problem,
  onRemedy: (anew: boolean) => void,
  note?: string,
): HTMLElement {
  const anew = el('button', { type: 'button', class: 'danger', onclick: () => beginAnew() }, 'Start over');
  const beginAnew = (): void => {
    if (anew.textContent === 'Start over') setText(anew, 'Really start over?');
    else onRemedy(true);
  };
  const again = el('button', { type: 'button', class: 'primary', onclick: () => onRemedy(false) }, 'Try again');
  return el(
    'section',
    { class: 'card problem' },
    el('h2', {}, title),
    el('p', {}, text),
    note === undefined ? undefined : el('p', {}, note),
    detail === undefined ? undefined : el('p', { class: 'muted' }, detail),
    el('div', { class: 'actions' }, ...remedies.map((remedy) => (remedy === 'anew' ? anew : again))),
  );
}
