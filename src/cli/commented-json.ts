/**
 * JSON with comments, for files that people write: `//` to the end of the line and slash-star to star-slash, between
 * tokens. `JSON.parse` has no comments, tells the line of few errors, quotes the text in its messages, which may have
 * secrets, and takes the last of two values with one key.
 */

import { UsageError } from './failure.ts';

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;

/** An object, with the place of each member in the text. */
export class JsonObject {
  readonly members: Map<string, { readonly value: Json; readonly line: number }> = new Map();
  /** The line where it begins, from 1. */
  readonly line: number;

  constructor(line: number) {
    this.line = line;
  }
}

/** What stands between tokens. */
const GAP = /(?:\s|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/y;
const TOKEN = /[{}[\],:]|"(?:[^"\\\n]|\\.)*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|[a-z]+|$/y;
const WORDS: ReadonlyMap<string, Json> = new Map<string, Json>([
  ['true', true],
  ['false', false],
  ['null', null],
]);

/** No configuration is nested this deep. Deeper text would overflow the stack. */
const MAX_DEPTH = 100;

/**
 * @throws {@link UsageError} with `name`, line and column if `text` is malformed or nested more than 100 deep, or an
 *   object has a key twice.
 */
export function parseCommentedJson(text: string, name: string): Json {
  return new Parser(text, name).parse();
}

class Parser {
  readonly #text: string;
  readonly #name: string;
  /** The next token, and where it begins. Empty at the end. */
  #token = '';
  #start = 0;
  #end = 0;
  #depth = 0;

  constructor(text: string, name: string) {
    this.#text = text.replace(/^\uFEFF/, '');
    this.#name = name;
    this.#next();
  }

  parse(): Json {
    const value = this.#value();
    if (this.#token !== '') this.#fail('the end');
    return value;
  }

  /** Steps to the next token, and returns the one before. */
  #next(): string {
    const token = this.#token;
    GAP.lastIndex = this.#end;
    GAP.exec(this.#text);
    this.#start = TOKEN.lastIndex = GAP.lastIndex;
    const match = TOKEN.exec(this.#text);
    if (match === null) return this.#fail('a value');
    this.#token = match[0];
    this.#end = TOKEN.lastIndex;
    return token;
  }

  #value(): Json {
    const first = this.#token[0];
    if (first === '{') return this.#object();
    if (first === '[') return this.#array();
    if (first === '"') return this.#string();
    const word = WORDS.get(this.#token);
    if (word === undefined && !/^[-\d]/.test(this.#token)) this.#fail('a value');
    const token = this.#next();
    return word === undefined ? Number(token) : word;
  }

  #object(): JsonObject {
    const object = new JsonObject(this.#line());
    this.#list('}', () => {
      const line = this.#line();
      if (this.#token[0] !== '"') this.#fail('a key in quotes');
      const start = this.#start;
      const key = this.#string();
      if (object.members.has(key)) {
        this.#start = start;
        throw this.#error(`the key ${JSON.stringify(key)} is there twice`);
      }
      if (this.#token !== ':') this.#fail('a colon');
      this.#next();
      object.members.set(key, { value: this.#value(), line });
    });
    return object;
  }

  #array(): readonly Json[] {
    const items: Json[] = [];
    this.#list(']', () => items.push(this.#value()));
    return items;
  }

  /** Reads elements between commas, up to and with `end`. */
  #list(end: string, element: () => void): void {
    if (++this.#depth > MAX_DEPTH) throw this.#error(`more than ${MAX_DEPTH} objects and lists are in each other`);
    this.#next();
    if (this.#token !== end) {
      element();
      while (this.#token === ',') {
        this.#next();
        element();
      }
    }
    if (this.#token !== end) this.#fail(`a comma or ${end}`);
    this.#depth--;
    this.#next();
  }

  #string(): string {
    try {
      const value = JSON.parse(this.#token) as string;
      this.#next();
      return value;
    } catch (error) {
      if (error instanceof UsageError) throw error;
      return this.#fail('valid escapes in the string');
    }
  }

  #line(): number {
    return this.#text.slice(0, this.#start).split('\n').length;
  }

  #fail(expected: string): never {
    throw this.#error(`${expected} is expected here`);
  }

  #error(what: string): UsageError {
    const column = this.#start - this.#text.lastIndexOf('\n', this.#start - 1);
    return new UsageError(`${this.#name}:${this.#line()}:${column}: ${what}`);
  }
}
