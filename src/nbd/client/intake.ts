/** Divides received bytes into the portions that a protocol expects. Each byte is copied once, to its destination. */

/** Called with a complete portion. Calls {@link Intake.expect} for the next portion, if there is one. */
export type Then = (portion: Uint8Array) => void;

export class Intake {
  /**
   * Returns the destination. Called for each piece of a portion, since the owner may have replaced the buffer
   * meanwhile.
   */
  #into: () => Uint8Array = () => new Uint8Array(0);
  #length = 0;
  #filled = 0;
  #then: Then = () => undefined;

  /**
   * Fills `into` with the next portion, then calls `then`. The intake ends if `then` expects no further portion.
   * @param into the destination, or a function that returns it; its length stays the same
   */
  expect(into: Uint8Array | (() => Uint8Array), then: Then): void {
    this.#into = typeof into === 'function' ? into : () => into;
    this.#length = this.#into().length;
    this.#filled = 0;
    this.#then = then;
  }

  /** Takes `bytes`. Returns those after the last portion that is expected. @throws what a portion's `then` throws. */
  push(bytes: Uint8Array): Uint8Array {
    let at = 0;
    while (this.#filled < this.#length) {
      if (at === bytes.length) return bytes.subarray(at);
      const count = Math.min(this.#length - this.#filled, bytes.length - at);
      const into = this.#into();
      into.set(count === bytes.length ? bytes : bytes.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled === this.#length) this.#then(into);
    }
    return bytes.subarray(at);
  }
}
