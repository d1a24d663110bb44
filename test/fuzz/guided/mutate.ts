/** Changes of an input: what a coverage-guided fuzzer tries. All randomness is passed in. */

import type { Random } from '../../../src/testing/random.ts';
import type { Literal } from './instrument.ts';
import type { Compared } from './runtime.ts';

/** What mutations may use besides the input. */
export interface Material {
  /** Another input of the corpus. */
  readonly other: Uint8Array;
  /** Encoded literals of the sources. */
  readonly words: readonly Uint8Array[];
  /** Values that were compared while the input ran. */
  readonly compared: readonly (readonly [Compared, Compared])[];
  readonly maxBytes: number;
}

/** Numbers at which a range, a size or a limit ends. */
const NUMBERS: readonly bigint[] = [
  ...[0n, 1n, 2n, 3n, 4n, 7n, 8n, 15n, 16n, 31n, 32n, 63n, 64n, 127n, 128n, 255n, 256n, 511n, 512n, 513n, 1024n],
  ...[2047n, 2048n, 4095n, 4096n, 4097n, 8192n, 32_767n, 32_768n, 65_535n, 65_536n, 2n ** 20n, 2n ** 24n, 2n ** 25n],
  ...[2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 40n, 2n ** 52n, 2n ** 53n - 1n, 2n ** 53n],
  ...[2n ** 62n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 512n],
];
const WIDTHS = [1, 2, 4, 8] as const;

/** The bytes of a number, in a width in which it fits, or its lowest bytes. */
function encoded(value: bigint, width: number, isLittle: boolean): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), isLittle);
  return isLittle ? bytes.slice(0, width) : bytes.slice(8 - width);
}

/** The ways in which an input may contain a value, the longest first. */
function encodingsOf(value: Compared): Uint8Array[] {
  if (typeof value === 'string') return value === '' ? [] : [new TextEncoder().encode(value), utf16(value)];
  if (typeof value === 'number' && !Number.isSafeInteger(value)) return [];
  const number = BigInt(value);
  const least = number < 0n || number >= 2n ** 32n ? 8 : number >= 2n ** 16n ? 4 : number >= 2n ** 8n ? 2 : 1;
  const widths = WIDTHS.filter((width) => width >= least).reverse();
  const binary = widths.flatMap((width) =>
    width === 1 ? [encoded(number, 1, true)] : [encoded(number, width, true), encoded(number, width, false)],
  );
  return [...binary, new TextEncoder().encode(String(value))];
}

function utf16(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'utf16le'));
}

/** Returns the words of literals, for {@link Material.words}. */
export function wordsOf(literals: Iterable<Literal>): Uint8Array[] {
  const words = new Map<string, Uint8Array>();
  for (const literal of literals)
    for (const word of encodingsOf(literal))
      if (word.length > 1 || typeof literal === 'string') words.set(Buffer.from(word).toString('latin1'), word);
  return [...words.values()];
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function put(input: Uint8Array, at: number, word: Uint8Array): Uint8Array {
  if (at + word.length > input.length) return joined(input.subarray(0, at), word);
  const made = input.slice();
  made.set(word, at);
  return made;
}

/** Places where `input` has `word`, at most 16, from a random place on. */
function placesOf(input: Uint8Array, word: Uint8Array, random: Random): number[] {
  const buffer = Buffer.from(input.buffer, input.byteOffset, input.length);
  const places: number[] = [];
  let from = random.below(input.length + 1);
  for (let isAgain = false; places.length < 16; ) {
    const at = buffer.indexOf(word, from);
    if (at < 0 && isAgain) break;
    if (at < 0) isAgain = true;
    else places.push(at);
    from = at + 1;
  }
  return places;
}

/** Replaces a value that was compared by the one that it was compared with, or by a neighbour of that. */
function satisfied(input: Uint8Array, { compared }: Material, random: Random): Uint8Array {
  if (compared.length === 0) return input;
  const pair = compared[random.below(compared.length)]!;
  const [found, wanted] = random.oneIn(2) ? pair : [pair[1], pair[0]];
  const from = encodingsOf(found);
  const to = encodingsOf(wanted);
  const step = BigInt(random.below(3) - 1);
  for (let tries = 0; tries < 4 && from.length > 0; tries++) {
    const word = from[random.below(from.length)]!;
    const places = placesOf(input, word, random);
    if (places.length === 0) continue;
    const at = places[random.below(places.length)]!;
    if (typeof wanted !== 'string' && (typeof wanted === 'bigint' || Number.isSafeInteger(wanted))) {
      const isText = random.oneIn(4) && word.every((byte) => byte >= 0x2d && byte <= 0x39);
      const number = BigInt(wanted) + step;
      if (isText) return spliced(input, at, word.length, new TextEncoder().encode(String(number)));
      const little = word.length === 1 || word[0] !== 0 || (random.oneIn(2) && word.at(-1) !== 0);
      return put(input, at, encoded(number, word.length, little));
    }
    if (to.length > 0) return spliced(input, at, word.length, to[random.below(to.length)]!);
  }
  return input;
}

function spliced(input: Uint8Array, at: number, length: number, word: Uint8Array): Uint8Array {
  return joined(input.subarray(0, at), word, input.subarray(at + length));
}

type Mutation = (input: Uint8Array, material: Material, random: Random) => Uint8Array;

const place = (input: Uint8Array, random: Random): number => random.below(Math.max(1, input.length));
const shortLength = (input: Uint8Array, at: number, random: Random): number =>
  Math.min(input.length - at, 1 + random.below(random.oneIn(4) ? Math.max(1, input.length) : 24));

const MUTATIONS: readonly Mutation[] = [
  (input, _, random) => {
    const made = input.slice();
    if (made.length > 0) made[place(input, random)]! ^= 1 << random.below(8);
    return made;
  },
  (input, _, random) => put(input, place(input, random), Uint8Array.of(random.below(256))),
  (input, _, random) => {
    const width = WIDTHS[random.below(4)]!;
    const at = place(input, random);
    const value = NUMBERS[random.below(NUMBERS.length)]!;
    return put(input, at - (random.oneIn(2) ? at % width : 0), encoded(value, width, random.oneIn(2)));
  },
  (input, _, random) => {
    const width = WIDTHS[random.below(4)]!;
    if (input.length < width) return input;
    const at = random.below(input.length - width + 1);
    const isLittle = random.oneIn(2);
    let value = 0n;
    for (let index = 0; index < width; index++)
      value = value * 256n + BigInt(input[at + (isLittle ? width - 1 - index : index)]!);
    const step = BigInt(1 + random.below(32));
    return put(input, at, encoded(random.oneIn(2) ? value + step : value - step, width, isLittle));
  },
  (input, _, random) => {
    const at = random.below(input.length + 1);
    const length = 1 + random.below(random.oneIn(4) ? 600 : 12);
    const word = random.oneIn(2) ? random.fill(new Uint8Array(length)) : new Uint8Array(length).fill(random.below(256));
    return joined(input.subarray(0, at), word, input.subarray(at));
  },
  (input, _, random) => {
    const at = place(input, random);
    return joined(input.subarray(0, at), input.subarray(at + shortLength(input, at, random)));
  },
  (input, _, random) => {
    const from = place(input, random);
    const word = input.slice(from, from + shortLength(input, from, random));
    const at = random.below(input.length + 1);
    return random.oneIn(2) ? put(input, at, word) : joined(input.subarray(0, at), word, input.subarray(at));
  },
  (input, { other }, random) => {
    const from = place(other, random);
    const word = other.slice(from, from + shortLength(other, from, random));
    const at = random.below(input.length + 1);
    if (random.oneIn(4)) return joined(input.subarray(0, at), other.subarray(from));
    return random.oneIn(2) ? put(input, at, word) : joined(input.subarray(0, at), word, input.subarray(at));
  },
  (input, { words }, random) => {
    if (words.length === 0) return input;
    const word = words[random.below(words.length)]!;
    const at = random.below(input.length + 1);
    return random.oneIn(2) ? put(input, at, word) : joined(input.subarray(0, at), word, input.subarray(at));
  },
  (input, _, random) => {
    const at = place(input, random);
    const made = input.slice();
    made.fill(random.oneIn(2) ? 0 : 255, at, at + shortLength(input, at, random));
    return made;
  },
  (input, _, random) => input.slice(0, place(input, random)),
];

/** Returns a changed copy of `input`: one to a few changes, most often one. */
export function mutated(input: Uint8Array, material: Material, random: Random): Uint8Array {
  let made = input;
  do {
    // Half of the changes answer a comparison. A truncation is rarer than the others.
    if (material.compared.length > 0 && random.oneIn(2)) made = satisfied(made, material, random);
    else {
      const index = random.below(MUTATIONS.length);
      if (index === MUTATIONS.length - 1 && !random.oneIn(4)) continue;
      made = MUTATIONS[index]!(made, material, random);
    }
    if (made.length > material.maxBytes) made = made.slice(0, material.maxBytes);
  } while (random.oneIn(2));
  return made;
}
