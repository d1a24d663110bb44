/** Bytes as they come, handed out in the portions that a protocol asks for: whole, and each of them copied once, to where it belongs. */

/** What to do with a portion once it is complete. It asks for the next one. */
export type Then = (portion: Uint8Array) => void;

export class Intake {
  /** Where the portion goes: looked up anew for each piece of it, as its owner may have given it up meanwhile. */
  #into: () => Uint8Array = () => new Uint8Array(0);
  #length = 0;
  #filled = 0;
  #then: Then = () => undefined;

  /** The next portion fills `into`, or what it returns, whose length stays the same. For once: a portion that asks for nothing ends the intake. */
  expect(into: Uint8Array | (() => Uint8Array), then: Then): void {
    this.#into = typeof into === 'function' ? into : () => into;
    this.#length = this.#into().length;
    this.#filled = 0;
    this.#then = then;
  }

  /** Takes all of `bytes` but what comes after the last portion that was asked for, which is returned. @throws what a portion's `then` throws. */
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
