/**
 * What each byte of a device may read as after a crash (the contract's promises 1 to 3): the last write that counts, a newer one, or, where
 * none counts, also the source's byte.
 */

export interface HistoricWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
  acknowledged: boolean;
  durable: boolean;
}

export class ByteHistory {
  readonly #source: Uint8Array;
  readonly #writes: HistoricWrite[] = [];

  constructor(source: Uint8Array) {
    this.#source = source;
  }

  /** A write is about to be made. Calls come in the order in which the device sees them. */
  begin(offset: number, bytes: Uint8Array): HistoricWrite {
    const write = { offset, bytes: bytes.slice(), acknowledged: false, durable: false };
    this.#writes.push(write);
    return write;
  }

  /** A flush is about to be made; to be called when it has resolved. */
  beginFlush(): () => void {
    const before = this.#writes.filter((write) => write.acknowledged);
    return () => {
      for (const write of before) write.durable = true;
    };
  }

  /** What is wrong with the first byte that must not read as it does. `counts`: which writes are promised to be there. */
  violation(found: Uint8Array, counts: 'acknowledged' | 'durable'): string | undefined {
    for (let at = 0; at < found.length; at++) {
      const covering = this.#writes.filter((write) => at >= write.offset && at < write.offset + write.bytes.length);
      const last = covering.map((write) => write[counts]).lastIndexOf(true);
      const allowed = covering.slice(Math.max(0, last)).map((write) => write.bytes[at - write.offset]);
      if (last < 0) allowed.push(this.#source[at]);
      if (allowed.includes(found[at])) continue;
      const told = covering.map(
        (write) => `${write.bytes[at - write.offset]}${write.durable ? ' durable' : write.acknowledged ? ' acknowledged' : ' in flight'}`,
      );
      return `byte ${at} reads ${found[at]}; the source has ${this.#source[at]}, writes: ${told.join(', ') || 'none'}`;
    }
    return undefined;
  }
}
