/** Parsers with planted bugs, which the fuzzer must find. */

/** A bug behind a magic number, a length and a number of another byte order. */
export function magic(input: Uint8Array): void {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  if (input.length < 16 || view.getUint32(0, true) !== 0x5eed_f00d) return;
  if (view.getUint16(4) !== input.length) return;
  if (view.getBigUint64(8) === 0x1122_3344_5566_7788n) throw new Error('the error without a code');
}

/** A recursion that no limit ends. */
export function nested(input: Uint8Array): void {
  const parse = (at: number): number => {
    const first = input[at];
    if (first === 0x28) return parse(at + 1);
    if (first === 0x29) return parse(at - 1);
    return at;
  };
  parse(0);
}

/** A bug behind a word, and behind a case of a switch. */
export function text(input: Uint8Array): void {
  const [first, second] = new TextDecoder('latin1').decode(input).split(' ');
  if (first !== 'content-range' || second === undefined) return;
  switch (second) {
    case 'bytes':
      throw new Error('the error behind a word');
    default:
  }
}

/** An allocation whose length the input says. */
export function memory(input: Uint8Array): void {
  if (input.length < 8) return;
  const length = new DataView(input.buffer, input.byteOffset).getUint32(4, true);
  if (input[0] === 0x7f) new Uint8Array(length).fill(1, 0, 1);
}

/** A rejection outside of the promise. */
export function rejection(input: Uint8Array): void {
  if (input[3] === 0xa5) void Promise.reject(new Error('the error that nothing awaits'));
}

/** A loop without an end. */
export function loop(input: Uint8Array): void {
  for (let at = 0; at < input.length; at += 0x77 - input[at]!) if (input[at]! > 0x77) return;
}

/** A promise that never settles. */
export async function never(input: Uint8Array): Promise<void> {
  if (input[2] === 0x5a && input[5] === 0xa5) await new Promise(() => undefined);
}

/** No bug. */
export function sound(input: Uint8Array): void {
  for (const byte of input) if (byte > 100) return;
}
