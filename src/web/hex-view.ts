/** Shows one page of the disk's bytes. Reading them fetches the blocks that the copy does not have yet. */

import { el, setText } from './dom.ts';
import { brief } from './problem.ts';
import type { Session } from './session.ts';
import { formatBytes, formatOffset, parseBytes, parseOffset } from './units.ts';

const ROWS = 20;

export class HexView {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #field: HTMLInputElement;
  readonly #body: HTMLElement;
  readonly #state: HTMLElement;
  #offset = 0;
  #perRow = 16;
  #bytes: Uint8Array = new Uint8Array(0);
  #going: AbortController | undefined;
  readonly #values: HTMLInputElement;

  constructor(session: Session) {
    this.#session = session;
    this.#field = el('input', {
      type: 'text',
      id: 'hex-offset',
      inputmode: 'text',
      autocomplete: 'off',
      spellcheck: 'false',
      size: 14,
    });
    this.#body = el('div', {
      class: 'bytes',
      role: 'region',
      tabindex: 0,
      'aria-label': 'Bytes; move with arrow keys, Page Up and Page Down',
      onkeydown: (event: KeyboardEvent) => this.#key(event),
    });
    this.#state = el('span', { class: 'muted', role: 'status' });
    const form = el(
      'form',
      { onsubmit: (event: SubmitEvent) => this.#submit(event) },
      el('label', { for: 'hex-offset' }, 'Offset'),
      this.#field,
      el('button', { class: 'small' }, 'Go'),
      el(
        'button',
        {
          class: 'small',
          type: 'button',
          'aria-label': 'Previous bytes',
          onclick: () => void this.show(this.#offset - this.#page),
        },
        '▲',
      ),
      el(
        'button',
        {
          class: 'small',
          type: 'button',
          'aria-label': 'Next bytes',
          onclick: () => void this.show(this.#offset + this.#page),
        },
        '▼',
      ),
      this.#state,
    );
    this.#values = el('input', {
      type: 'text',
      id: 'hex-values',
      autocomplete: 'off',
      spellcheck: 'false',
      placeholder: '48 69 or "Hi"',
    });
    const write = el(
      'form',
      { class: 'write', onsubmit: (event: SubmitEvent) => void this.#write(event) },
      el('label', { for: 'hex-values' }, 'Write at this offset'),
      this.#values,
      el('button', { class: 'small' }, 'Write'),
      el(
        'small',
        {},
        session.isKept ? 'changes only the copy in this browser' : 'changes only the memory of this page',
      ),
    );
    this.element = el(
      'section',
      { class: 'card hex', 'aria-label': 'Bytes' },
      el('header', {}, form),
      this.#body,
      write,
    );
    new ResizeObserver(() => this.#fit()).observe(this.#body);
  }

  get isShown(): boolean {
    return this.#going !== undefined;
  }

  get #page(): number {
    return ROWS * this.#perRow;
  }

  /** Shows the bytes from `offset` on. A later call aborts the read of an earlier one. */
  async show(offset: number): Promise<void> {
    const { size } = this.#session;
    const last = Math.max(0, Math.floor((size - 1) / this.#perRow) * this.#perRow);
    this.#offset = Math.max(0, Math.min(last, Math.floor(offset / this.#perRow) * this.#perRow));
    this.#field.value = `0x${formatOffset(this.#offset)}`;
    this.#going?.abort();
    const going = (this.#going = new AbortController());
    const slow = setTimeout(() => setText(this.#state, 'fetching …'), 150);
    const begun = performance.now();
    try {
      this.#bytes = await this.#session.read(this.#offset, Math.min(this.#page, size - this.#offset), going.signal);
      setText(this.#state, `read in ${Math.max(1, Math.round(performance.now() - begun))} ms`);
      this.#draw();
    } catch (error) {
      if (!going.signal.aborted) setText(this.#state, brief(error));
    } finally {
      clearTimeout(slow);
    }
  }

  /** Shows 8 bytes per row if 16 do not fit. */
  #fit(): void {
    const perRow = this.#body.clientWidth < 560 ? 8 : 16;
    if (perRow === this.#perRow) return;
    this.#perRow = perRow;
    if (this.#bytes.length > 0) void this.show(this.#offset);
  }

  #draw(): void {
    const digits = Math.max(8, formatOffset(this.#session.size).length);
    const rows: HTMLElement[] = [];
    for (let at = 0; at < this.#bytes.length; at += this.#perRow) {
      const row = this.#bytes.subarray(at, at + this.#perRow);
      rows.push(
        el(
          'div',
          {},
          el('b', {}, formatOffset(this.#offset + at, digits)),
          hexOf(row, this.#perRow),
          el('span', { class: 'characters', 'aria-hidden': 'true' }, charactersOf(row)),
        ),
      );
    }
    this.#body.replaceChildren(...rows);
  }

  #submit(event: SubmitEvent): void {
    event.preventDefault();
    const offset = parseOffset(this.#field.value);
    if (offset === undefined || offset >= this.#session.size)
      setText(this.#state, `use an offset below ${formatBytes(this.#session.size)}, such as 0x1f0 or 4M`);
    else void this.show(offset);
  }

  /** Writes the typed bytes and flushes the device, so that they survive a crash. */
  async #write(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const bytes = parseBytes(this.#values.value);
    if (bytes === undefined || bytes.length > this.#session.size - this.#offset) {
      setText(this.#state, 'use bytes such as 48 69, or text such as "Hi"');
      return;
    }
    try {
      await this.#session.device.write(bytes, this.#offset);
      await this.#session.device.flush();
      await this.show(this.#offset);
      setText(this.#state, `${bytes.length} bytes written and flushed`);
    } catch (error) {
      setText(this.#state, brief(error));
    }
  }

  #key(event: KeyboardEvent): void {
    const steps: Readonly<Record<string, number>> = {
      ArrowUp: -this.#perRow,
      ArrowDown: this.#perRow,
      PageUp: -this.#page,
      PageDown: this.#page,
      Home: -this.#session.size,
      End: this.#session.size,
    };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    void this.show(this.#offset + step);
  }
}

/** Renders a row in hexadecimal. Zeros are dim, so that other bytes stand out. */
function hexOf(row: Uint8Array, perRow: number): HTMLElement {
  const line = el('span', { class: 'digits' });
  let text = '';
  let isZero = false;
  const flush = (): void => {
    if (text !== '') line.append(isZero ? el('i', {}, text) : text);
    text = '';
  };
  for (let index = 0; index < perRow; index++) {
    const byte = row[index];
    if ((byte === 0) !== isZero) {
      flush();
      isZero = byte === 0;
    }
    const digits = byte === undefined ? '  ' : byte.toString(16).padStart(2, '0');
    text += digits + (index === 7 && perRow === 16 ? '  ' : ' ');
  }
  flush();
  return line;
}

export function charactersOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '·')).join('');
}
