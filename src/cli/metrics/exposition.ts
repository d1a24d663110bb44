/** The text format of Prometheus, version 0.0.4: families of samples, each with its help and its type. */

export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Upper bounds of the buckets in seconds: 1, 2.5 and 5 in each decade, from 10 µs to 50 s. */
const BOUNDS: readonly number[] = [-5, -4, -3, -2, -1, 0, 1].flatMap((decade) =>
  [1, 2.5, 5].map((factor) => Number(`${factor}e${decade}`)),
);
const LAST_BUCKET = BOUNDS.length;

/** Durations, counted in fixed buckets. */
export class Histogram {
  readonly #counts = new Float64Array(LAST_BUCKET + 1);
  #sum = 0;

  observe(milliseconds: number): void {
    const seconds = milliseconds / 1000;
    let bucket = 0;
    while (bucket < LAST_BUCKET && seconds > BOUNDS[bucket]!) bucket++;
    this.#counts[bucket]! += 1;
    this.#sum += seconds;
  }

  get sum(): number {
    return this.#sum;
  }

  /** Yields the upper bound of each bucket as a label, and how many durations are not above it. */
  *buckets(): Generator<readonly [bound: string, count: number]> {
    let count = 0;
    for (const [index, inBucket] of this.#counts.entries()) {
      count += inBucket;
      yield [index === LAST_BUCKET ? '+Inf' : String(BOUNDS[index]), count];
    }
  }
}

export type Labels = Readonly<Record<string, string>>;

/** Builds one text. */
export class Exposition {
  readonly #lines: string[] = [];

  /**
   * Adds a family. Without samples it is left out.
   * @param samples numbers, or histograms for the type `histogram`
   */
  add(
    name: string,
    type: 'counter' | 'gauge' | 'histogram',
    help: string,
    samples: Iterable<readonly [labels: Labels, value: number | Histogram]>,
  ): void {
    let isFirst = true;
    for (const [labels, value] of samples) {
      if (isFirst) this.#lines.push(`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`);
      isFirst = false;
      if (typeof value === 'number') this.#sample(name, labels, value);
      else this.#histogram(name, labels, value);
    }
  }

  #histogram(name: string, labels: Labels, histogram: Histogram): void {
    let total = 0;
    for (const [le, count] of histogram.buckets()) {
      this.#sample(`${name}_bucket`, { ...labels, le }, count);
      total = count;
    }
    this.#sample(`${name}_sum`, labels, histogram.sum);
    this.#sample(`${name}_count`, labels, total);
  }

  #sample(name: string, labels: Labels, value: number): void {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
    this.#lines.push(`${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${numberOf(value)}`);
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`;
  }
}

function numberOf(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
