/** Bytes over time, in buckets of equal length. The buckets double when there are too many. */

const MAX_BUCKETS = 2048;

export class RateSeries {
  #bucketSeconds = 0.25;
  #bytes: number[] = [];

  add(from: number, to: number, rate: number): void {
    while (to / this.#bucketSeconds > MAX_BUCKETS) this.#halve();
    for (let bucket = Math.floor(from / this.#bucketSeconds); bucket * this.#bucketSeconds < to; bucket++) {
      const start = Math.max(from, bucket * this.#bucketSeconds);
      const end = Math.min(to, (bucket + 1) * this.#bucketSeconds);
      this.#bytes[bucket] = (this.#bytes[bucket] ?? 0) + rate * Math.max(0, end - start);
    }
  }

  result(): { bucketSeconds: number; rates: number[] } {
    return {
      bucketSeconds: this.#bucketSeconds,
      rates: Array.from(this.#bytes, (bytes = 0) => bytes / this.#bucketSeconds),
    };
  }

  #halve(): void {
    const half: number[] = [];
    this.#bytes.forEach((bytes, bucket) => {
      half[bucket >> 1] = (half[bucket >> 1] ?? 0) + bytes;
    });
    this.#bytes = half;
    this.#bucketSeconds *= 2;
  }
}
