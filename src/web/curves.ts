/** Two curves of the last minute: the throughput of the copy, and the latency of the page's own reads. */

import { el, setText } from './dom.ts';
import type { Session } from './session.ts';
import { formatBytes, formatMilliseconds } from './units.ts';

const WINDOW_MS = 60_000;
const HEIGHT = 84;
/** The latency axis is logarithmic, from 0.1 ms to 10 s. */
const FASTEST_MS = 0.1;
const SLOWEST_MS = 10_000;

export class CurvesView {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #rate = chart('Throughput');
  readonly #latency = chart('Latency of reads');

  constructor(session: Session) {
    this.#session = session;
    this.element = el(
      'section',
      { class: 'card curves', 'aria-label': 'Speed over the last minute' },
      this.#rate.element,
      this.#latency.element,
    );
    session.onTick(() => this.draw());
  }

  draw(): void {
    this.#drawRate();
    this.#drawLatency();
  }

  #drawRate(): void {
    const { rates, bytesPerSecond } = this.#session;
    const peak = Math.max(2 ** 16, ...rates.map((sample) => sample.bytesPerSecond));
    setText(this.#rate.value, bytesPerSecond === 0 ? '–' : `${formatBytes(bytesPerSecond)}/s`);
    setText(this.#rate.scale, `peak ${formatBytes(peak)}/s`);
    this.#rate.canvas.setAttribute(
      'aria-label',
      `Throughput, now ${formatBytes(bytesPerSecond)} per second, at most ${formatBytes(peak)} in the last minute`,
    );
    const plot = begin(this.#rate.canvas);
    if (plot === undefined) return;
    const { context, width, colour } = plot;
    const now = performance.now();
    const x = (atMs: number): number => width - ((now - atMs) / WINDOW_MS) * width;
    const y = (value: number): number => HEIGHT - 2 - (value / peak) * (HEIGHT - 6);
    context.beginPath();
    for (const [index, { atMs, bytesPerSecond: value }] of rates.entries())
      index === 0 ? context.moveTo(x(atMs), y(value)) : context.lineTo(x(atMs), y(value));
    context.strokeStyle = colour('synced');
    context.lineWidth = 2;
    context.lineJoin = 'round';
    context.stroke();
    const first = rates[0];
    if (first === undefined) return;
    context.lineTo(x(rates.at(-1)!.atMs), HEIGHT);
    context.lineTo(x(first.atMs), HEIGHT);
    context.fillStyle = colour('synced');
    context.globalAlpha = 0.14;
    context.fill();
    context.globalAlpha = 1;
  }

  #drawLatency(): void {
    const { reads } = this.#session;
    const sorted = reads.map(({ tookMs }) => tookMs).sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    setText(this.#latency.value, median === undefined ? '–' : formatMilliseconds(reads.at(-1)!.tookMs));
    setText(
      this.#latency.scale,
      median === undefined
        ? 'no reads yet'
        : `median ${formatMilliseconds(median)}, slowest ${formatMilliseconds(sorted.at(-1)!)}`,
    );
    this.#latency.canvas.setAttribute(
      'aria-label',
      median === undefined
        ? 'Latency: no reads in the last minute'
        : `Latency of ${reads.length} reads in the last minute: median ${formatMilliseconds(median)}`,
    );
    const plot = begin(this.#latency.canvas);
    if (plot === undefined) return;
    const { context, width, colour } = plot;
    const now = performance.now();
    const y = (ms: number): number => {
      const share =
        Math.log(Math.max(FASTEST_MS, Math.min(SLOWEST_MS, ms)) / FASTEST_MS) / Math.log(SLOWEST_MS / FASTEST_MS);
      return HEIGHT - 5 - share * (HEIGHT - 10);
    };
    context.strokeStyle = colour('grid');
    context.fillStyle = colour('faint');
    context.font = '10px system-ui, sans-serif';
    for (const [ms, name] of [
      [1, '1 ms'],
      [100, '100 ms'],
      [10_000, '10 s'],
    ] as const) {
      context.beginPath();
      context.moveTo(0, Math.round(y(ms)) + 0.5);
      context.lineTo(width, Math.round(y(ms)) + 0.5);
      context.stroke();
      context.fillText(name, 0, y(ms) + (ms === 10_000 ? 11 : -3));
    }
    for (const { atMs, tookMs } of reads) {
      context.beginPath();
      context.arc(width - 4 - ((now - atMs) / WINDOW_MS) * (width - 8), y(tookMs), 2.5, 0, Math.PI * 2);
      context.fillStyle = colour(tookMs < 10 ? 'synced' : 'fetching');
      context.fill();
    }
  }
}

function chart(title: string): {
  element: HTMLElement;
  canvas: HTMLCanvasElement;
  value: HTMLElement;
  scale: HTMLElement;
} {
  const canvas = el('canvas', { role: 'img', 'aria-label': title });
  const value = el('strong', {}, '–');
  const scale = el('small', {});
  return {
    element: el('figure', {}, el('figcaption', {}, el('span', {}, title), value, scale), canvas),
    canvas,
    value,
    scale,
  };
}

function begin(
  canvas: HTMLCanvasElement,
): { context: CanvasRenderingContext2D; width: number; colour: (name: string) => string } | undefined {
  const context = canvas.getContext('2d');
  const width = canvas.clientWidth;
  if (context === null || width === 0) return undefined;
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(HEIGHT * devicePixelRatio);
  context.scale(devicePixelRatio, devicePixelRatio);
  const style = getComputedStyle(canvas);
  return { context, width, colour: (name) => style.getPropertyValue(`--${name}`).trim() };
}
