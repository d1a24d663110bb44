/**
 * The map of the disk: one square for each stretch of blocks, updated live.
 *
 * It zooms, has a cursor for mouse and keyboard, and repeats its content as a table of text.
 */

import { el, setText } from './dom.ts';
import {
  blocksOfCell,
  type CellState,
  cellOfBlock,
  cellState,
  type Grid,
  gridFor,
  moved,
  type Span,
  STATE_NAMES,
  zoomed,
} from './map-cells.ts';
import type { Session } from './session.ts';
import { formatBytes, formatOffset, formatShare } from './units.ts';

const HEIGHT = 250;
const GAP = 2;
/** How long a square glows after blocks arrived in it. */
const GLOW_MS = 900;
const WORDS = 16;

export interface MapOptions {
  readonly session: Session;
  /** Called when the user chooses a square. `offset` is its first byte on the disk. */
  onChoose(offset: number): void;
}

export class MapView {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #onChoose: (offset: number) => void;
  readonly #canvas: HTMLCanvasElement;
  readonly #readout: HTMLElement;
  readonly #spanText: HTMLElement;
  readonly #words: HTMLTableSectionElement;
  readonly #details: HTMLDetailsElement;
  readonly #home: HTMLButtonElement;
  #span: Span;
  #grid: Grid = { columns: 1, rows: 1, cells: 1, pitch: 10, height: 10 };
  /** Counts per square, for the view that {@link #counted} names. They are stale while that is not {@link #view}. */
  #synced: Float64Array = new Float64Array(1);
  #dirty: Float64Array = new Float64Array(1);
  #glowUntil: Float64Array = new Float64Array(1);
  #counted = '';
  #counting = false;
  #cursor: number | undefined;
  /** Byte ranges of the chosen file, which the map marks. */
  #marks: readonly { start: number; end: number }[] = [];
  #drag: { x: number; span: Span; moved: boolean } | undefined;

  constructor({ session, onChoose }: MapOptions) {
    this.#session = session;
    this.#onChoose = onChoose;
    this.#span = this.#whole;
    this.#canvas = el('canvas', {
      tabindex: 0,
      role: 'img',
      'aria-roledescription': 'map',
      'aria-describedby': 'map-keys',
      onpointermove: (event: PointerEvent) => this.#point(event),
      onpointerleave: () => this.#leave(),
      onpointerdown: (event: PointerEvent) => this.#press(event),
      onpointerup: (event: PointerEvent) => this.#release(event),
      onpointercancel: () => (this.#drag = undefined),
      onwheel: (event: WheelEvent) => this.#wheel(event),
      onkeydown: (event: KeyboardEvent) => this.#key(event),
    });
    this.#readout = el('p', { class: 'readout', 'aria-live': 'polite' });
    this.#spanText = el('span', { class: 'span' });
    this.#words = el('tbody');
    this.#details = el(
      'details',
      { class: 'words', ontoggle: () => void this.#tellWords() },
      el('summary', {}, 'The map as a table'),
      el(
        'table',
        {},
        el(
          'thead',
          {},
          el('tr', {}, ...['Range', 'Copied', 'Partly written'].map((name) => el('th', { scope: 'col' }, name))),
        ),
        this.#words,
      ),
    );
    this.#home = button('Whole disk', () => this.show(this.#whole));
    this.element = el(
      'section',
      { class: 'card map', 'aria-labelledby': 'map-title' },
      el(
        'header',
        {},
        el('h2', { id: 'map-title' }, 'The disk'),
        this.#spanText,
        el(
          'div',
          { class: 'tools', role: 'group', 'aria-label': 'Zoom' },
          button('−', () => this.#zoom(2), 'Zoom out'),
          button('+', () => this.#zoom(0.5), 'Zoom in'),
          this.#home,
        ),
      ),
      this.#canvas,
      el('div', { class: 'below' }, legend(), this.#readout),
      el(
        'p',
        { id: 'map-keys', class: 'hidden' },
        'Arrow keys move over the squares, plus and minus zoom, Enter shows the bytes, Home shows the whole disk.',
      ),
      this.#details,
    );
    new ResizeObserver(() => {
      this.#layOut();
      void this.#tick();
    }).observe(this.#canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
    session.onTick(() => void this.#tick());
  }

  /** Shows the blocks of `span`. */
  show(span: Span): void {
    this.#span = zoomed(span, this.#whole.end, span.start, 1);
    this.#cursor = undefined;
    this.#layOut();
    void this.#tick();
  }

  /** Shows bytes [start, end) of the disk. */
  showBytes(start: number, end: number): void {
    const { blockSize } = this.#session.device;
    this.show({ start: Math.floor(start / blockSize), end: Math.ceil(end / blockSize) });
  }

  /** Marks byte ranges of the disk. */
  mark(ranges: readonly { start: number; end: number }[]): void {
    this.#marks = ranges;
    this.#draw();
  }

  get #whole(): Span {
    return { start: 0, end: this.#session.status.totalBlocks };
  }

  #layOut(): void {
    const width = this.#canvas.clientWidth;
    if (width === 0) return;
    this.#grid = gridFor({ width, height: HEIGHT }, this.#span.end - this.#span.start);
    const scale = devicePixelRatio;
    this.#canvas.style.height = `${this.#grid.height}px`;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(this.#grid.height * scale);
    const { start, end } = this.#span;
    const { blockSize, size } = this.#session.device;
    const isWhole = start === 0 && end === this.#whole.end;
    this.#home.disabled = isWhole;
    const perCell = formatBytes(((end - start) * blockSize) / this.#grid.cells);
    const from = isWhole ? '' : `${formatBytes(start * blockSize)} – `;
    const to = formatBytes(Math.min(size, end * blockSize));
    setText(this.#spanText, `${from}${to} · a square is ${perCell}`);
    this.#draw();
  }

  get #view(): string {
    return `${this.#span.start}:${this.#span.end}:${this.#grid.cells}`;
  }

  async #tick(): Promise<void> {
    if (!this.#counting && this.#canvas.clientWidth > 0) {
      this.#counting = true;
      await this.#count().catch(() => undefined);
      this.#counting = false;
    }
    this.#draw();
  }

  async #count(): Promise<void> {
    const { device, status } = this.#session;
    const key = this.#view;
    const { cells } = this.#grid;
    const [synced, dirty] = await Promise.all([
      device.countSynced(cells, this.#span),
      status.dirtyBlocks > 0 ? device.countDirty(cells, this.#span) : new Float64Array(cells),
    ]);
    if (key !== this.#view) return;
    const now = performance.now();
    const isSame = key === this.#counted;
    if (!isSame) this.#glowUntil = new Float64Array(cells);
    else
      for (let cell = 0; cell < cells; cell++)
        if (synced[cell]! > this.#synced[cell]!) this.#glowUntil[cell] = now + GLOW_MS;
    this.#synced = synced;
    this.#dirty = dirty;
    this.#counted = key;
    this.element.classList.toggle('has-dirty', status.dirtyBlocks > 0);
    this.#tell();
    if (this.#details.open) await this.#tellWords();
  }

  #tell(): void {
    const { syncedBytes, size, status } = this.#session;
    const written = status.dirtyBlocks > 0 ? `, ${status.dirtyBlocks} blocks partly written` : '';
    this.#canvas.setAttribute(
      'aria-label',
      `Map of the disk: ${formatShare(syncedBytes, size)} of ${formatBytes(size)} copied${written}`,
    );
  }

  /** Renders the visible span as a table of at most 16 stretches. */
  async #tellWords(): Promise<void> {
    if (!this.#details.open) return;
    const { device, size } = this.#session;
    const span = this.#span;
    const rows = Math.min(WORDS, span.end - span.start);
    const [synced, dirty] = await Promise.all([device.countSynced(rows, span), device.countDirty(rows, span)]);
    const cells = Array.from({ length: rows }, (_, row) => {
      const { start, end } = blocksOfCell(span, rows, row);
      const from = start * device.blockSize;
      const to = Math.min(size, end * device.blockSize);
      return [
        `${formatBytes(from)} – ${formatBytes(to)}`,
        formatShare(synced[row]!, end - start),
        dirty[row]! > 0 ? `${dirty[row]} blocks` : '',
      ];
    });
    this.#words.replaceChildren(
      ...cells.map((row) =>
        el(
          'tr',
          {},
          ...row.map((text, index) => el(index === 0 ? 'th' : 'td', index === 0 ? { scope: 'row' } : {}, text)),
        ),
      ),
    );
  }

  #stateOf(cell: number, now: number): { state: CellState; share: number } {
    const blocks = blocksOfCell(this.#span, this.#grid.cells, cell);
    const count = blocks.end - blocks.start;
    const synced = this.#synced[cell] ?? 0;
    const arriving = (this.#glowUntil[cell] ?? 0) > now || (synced < count && this.#isRead(blocks));
    return {
      state: cellState({ blocks: count, synced, dirty: this.#dirty[cell] ?? 0, arriving }),
      share: count === 0 ? 0 : synced / count,
    };
  }

  #isRead({ start, end }: Span): boolean {
    const { blockSize } = this.#session.device;
    for (const range of this.#session.reading)
      if (range.start < end * blockSize && range.end > start * blockSize) return true;
    return false;
  }

  #draw(): void {
    const context = this.#canvas.getContext('2d');
    if (context === null) return;
    const { columns, cells, pitch } = this.#grid;
    const colours = coloursOf(this.#canvas);
    const now = performance.now();
    const { blockSize } = this.#session.device;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    const isCounted = this.#counted === this.#view;
    const side = pitch - GAP;
    const radius = Math.min(3, side / 4);
    for (let cell = 0; cell < cells; cell++) {
      const x = (cell % columns) * pitch;
      const y = Math.floor(cell / columns) * pitch;
      const square = (colour: string, alpha = 1): void => {
        context.globalAlpha = alpha;
        context.fillStyle = colour;
        context.beginPath();
        context.roundRect(x, y, side, side, radius);
        context.fill();
      };
      square(colours.unsynced);
      if (!isCounted) continue;
      const { state, share } = this.#stateOf(cell, now);
      if (state === 'partly') square(colours.synced, 0.2 + 0.55 * share);
      else if (state !== 'unsynced') square(colours[state]);
    }
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeStyle = colours.mark;
    for (const { start, end } of this.#marks) {
      const first = Math.floor(start / blockSize);
      const last = Math.ceil(end / blockSize) - 1;
      if (last < this.#span.start || first >= this.#span.end) continue;
      const to = cellOfBlock(this.#span, cells, Math.min(last, this.#span.end - 1));
      for (let cell = cellOfBlock(this.#span, cells, Math.max(first, this.#span.start)); cell <= to; cell++) {
        context.beginPath();
        context.roundRect(
          (cell % columns) * pitch + 1,
          Math.floor(cell / columns) * pitch + 1,
          side - 2,
          side - 2,
          radius,
        );
        context.stroke();
      }
    }
    if (this.#cursor !== undefined) {
      context.strokeStyle = colours.text;
      context.beginPath();
      context.roundRect(
        (this.#cursor % columns) * pitch,
        Math.floor(this.#cursor / columns) * pitch,
        side,
        side,
        radius,
      );
      context.stroke();
      this.#describe(this.#cursor, now);
    } else setText(this.#readout, '');
  }

  #describe(cell: number, now: number): void {
    const { start, end } = blocksOfCell(this.#span, this.#grid.cells, cell);
    const { blockSize } = this.#session.device;
    const { state, share } = this.#stateOf(cell, now);
    const how = state === 'partly' ? `${formatShare(share, 1)} copied` : STATE_NAMES[state];
    setText(
      this.#readout,
      `0x${formatOffset(start * blockSize)} · ${formatBytes(Math.max(1, end - start) * blockSize)} · ${how}`,
    );
  }

  #cellAt(event: MouseEvent): number | undefined {
    const { columns, cells, pitch } = this.#grid;
    const column = Math.floor(event.offsetX / pitch);
    const cell = Math.floor(event.offsetY / pitch) * columns + column;
    return column >= 0 && column < columns && cell >= 0 && cell < cells ? cell : undefined;
  }

  #point(event: PointerEvent): void {
    if (this.#drag !== undefined) {
      const rows = (event.offsetX - this.#drag.x) / (this.#grid.pitch * this.#grid.columns);
      if (Math.abs(event.offsetX - this.#drag.x) > 6) this.#drag.moved = true;
      const length = this.#drag.span.end - this.#drag.span.start;
      if (this.#drag.moved && length < this.#whole.end) {
        this.#span = moved(this.#drag.span, this.#whole.end, -rows * length);
        this.#layOut();
        return;
      }
    }
    this.#cursor = this.#cellAt(event);
    this.#draw();
  }

  #press(event: PointerEvent): void {
    this.#drag = { x: event.offsetX, span: this.#span, moved: false };
  }

  #release(event: PointerEvent): void {
    const isClick = this.#drag !== undefined && !this.#drag.moved;
    this.#drag = undefined;
    this.#cursor = this.#cellAt(event);
    if (isClick) this.#choose();
    void this.#tick();
  }

  #leave(): void {
    this.#drag = undefined;
    if (document.activeElement !== this.#canvas) this.#cursor = undefined;
    this.#draw();
  }

  /** Zooms only with Ctrl or Cmd. Without them the wheel scrolls the page. */
  #wheel(event: WheelEvent): void {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.#cursor = this.#cellAt(event);
    this.#zoom(event.deltaY > 0 ? 1.25 : 0.8);
  }

  #zoom(factor: number): void {
    const cell = this.#cursor;
    const middle = (this.#span.start + this.#span.end) / 2;
    const block = cell === undefined ? middle : blocksOfCell(this.#span, this.#grid.cells, cell).start;
    this.#span = zoomed(this.#span, this.#whole.end, block, factor);
    this.#layOut();
    if (cell !== undefined) this.#cursor = cellOfBlock(this.#span, this.#grid.cells, block);
    void this.#tick();
  }

  #choose(): void {
    if (this.#cursor === undefined) return;
    this.#onChoose(blocksOfCell(this.#span, this.#grid.cells, this.#cursor).start * this.#session.device.blockSize);
  }

  #key(event: KeyboardEvent): void {
    const { columns, cells } = this.#grid;
    const steps: Readonly<Record<string, number>> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -columns,
      ArrowDown: columns,
    };
    const step = steps[event.key];
    const length = this.#span.end - this.#span.start;
    if (step !== undefined)
      this.#cursor = this.#cursor === undefined ? 0 : Math.max(0, Math.min(cells - 1, this.#cursor + step));
    else if (event.key === '+' || event.key === '=') this.#zoom(0.5);
    else if (event.key === '-') this.#zoom(2);
    else if (event.key === 'Home') this.show(this.#whole);
    else if (event.key === 'PageDown' || event.key === 'PageUp')
      this.#span = moved(this.#span, this.#whole.end, event.key === 'PageUp' ? -length / 2 : length / 2);
    else if (event.key === 'Enter' || event.key === ' ') this.#choose();
    else if (event.key === 'Escape') this.#cursor = undefined;
    else return;
    event.preventDefault();
    this.#layOut();
    void this.#tick();
  }
}

function button(text: string, onclick: () => void, label?: string): HTMLButtonElement {
  return el('button', { type: 'button', class: 'small', 'aria-label': label, title: label, onclick }, text);
}

function legend(): HTMLElement {
  const states: CellState[] = ['unsynced', 'fetching', 'dirty', 'synced'];
  return el(
    'ul',
    { class: 'legend', 'aria-label': 'Legend' },
    ...states.map((state) => el('li', { class: `legend-${state}` }, el('i', { class: state }), STATE_NAMES[state])),
  );
}

function coloursOf(element: Element): Readonly<Record<CellState | 'text' | 'mark', string>> {
  const style = getComputedStyle(element);
  const of = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    unsynced: of('unsynced'),
    partly: of('synced'),
    fetching: of('fetching'),
    dirty: of('dirty'),
    synced: of('synced'),
    text: of('text'),
    mark: of('mark'),
  };
}
