/**
 * `node scripts/tidy.mjs [FOLDER]`: checks the texts of all tracked files, by default those of this repository.
 *
 * - A line has at most 120 characters.
 * - No text contains a phrase of {@link BANNED}. This list is the only place where these phrases may stand.
 * - A sentence in a document or doc comment has at most 30 words. The target is 25.
 *
 * Prints `file:line: message` for each finding. A folder without git is read as a whole, without build outputs.
 */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { trackedFiles } from './lib/tracked-files.mjs';

const MAX_LINE_CHARACTERS = 120;
const MAX_SENTENCE_WORDS = 30;

/**
 * Phrases and their replacements. Case and white space do not matter.
 * @type {readonly (readonly [phrase: string, replacement: string])[]}
 */
export const BANNED = [
  ['anybody', 'any caller, any process'],
  ['are told', 'get, are configured to'],
  ['begin anew', 'start again'],
  ['begins anew', 'starts again'],
  ['comes to an end', 'ends'],
  ['for ever', 'always, forever'],
  ['go on', 'continue, resume'],
  ['goes on', 'continues, resumes'],
  ['going on', 'continuing'],
  ['gone on with', 'continued'],
  ['has not.', 'the noun: "block 9 is beyond the device"'],
  ['have not.', 'the noun'],
  ['in the clear', 'plaintext'],
  ['inside the call', 'synchronously'],
  ['is not there', 'does not exist, is missing'],
  ['is told', 'gets, is configured to'],
  ['nobody', 'no caller, no process'],
  ['of its own accord', 'automatically'],
  ['rightly', 'correctly'],
  ['somebody', 'a user, another process'],
  ['that is none', 'invalid'],
  ['under way', 'in progress, in flight'],
  ['whoever', 'the caller, the owner'],
];

/** Files without our prose: generated, data, pictures, and the texts of licences. */
const EXEMPT_FILES = [
  /^package-lock\.json$/,
  /^(LICENSE|NOTICE)$/,
  /^docs\/(api\/|API\.md$)/,
  /^src\/wasm\/generated\//,
  /^test\/fixtures\/.*(?<!\.md)$/,
  /\.(svg|png|jpg)$/,
];

/** A string in JSON cannot be wrapped. */
const LONG_LINES = /\.json$/;

/** A line that is one URL, perhaps in a comment or a list, cannot be wrapped. */
const ONE_URL = /^[^\p{L}\p{N}]*https?:\/\/\S+$/u;

/** @param {string} phrase */
function patternOf(phrase) {
  const escaped = phrase.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/ /g, '\\s+');
  return new RegExp(`(?<![\\w-])${escaped}(?!\\w)`, 'i');
}

const bannedPatterns = BANNED.map(([phrase, replacement]) => ({ phrase, replacement, pattern: patternOf(phrase) }));

/**
 * The prose of a document: paragraphs and list items, without headings, tables, HTML and code.
 * @param {readonly string[]} lines
 * @param {number} firstLine number of the first line
 * @returns {{ line: number, text: string }[]} one entry per line of prose; `text` of '' separates paragraphs
 */
function proseOf(lines, firstLine) {
  let isCode = false;
  return lines.map((raw, index) => {
    const line = firstLine + index;
    const text = raw.trim();
    const isFence = text.startsWith('```');
    if (isFence) isCode = !isCode;
    return { line, text: isFence || isCode || /^[|#<]/.test(text) ? '' : text };
  });
}

/**
 * @param {string} path
 * @param {string} text
 * @returns {{ line: number, text: string }[]}
 */
function proseIn(path, text) {
  if (path.endsWith('.md')) return proseOf(text.split('\n'), 1);
  if (!/\.(ts|mjs|js)$/.test(path)) return [];
  return [...text.matchAll(/\/\*\*([\s\S]*?)\*\//g)].flatMap(({ index, 1: body = '' }) => {
    const firstLine = text.slice(0, index).split('\n').length;
    const lines = body.split('\n').map((line) => line.replace(/^\s*\* ?/, ''));
    return [...proseOf(lines, firstLine), { line: 0, text: '' }];
  });
}

/**
 * Joins wrapped lines and splits them into sentences. A list item and a tag of a doc comment start a new sentence, and
 * so does the text after a colon or a semicolon.
 * @param {readonly { line: number, text: string }[]} prose
 * @returns {Generator<{ line: number, words: number }>} each sentence that is too long
 */
function* longSentences(prose) {
  /** @type {{ line: number, word: string }[]} */
  let sentence = [];
  const end = function* () {
    const words = sentence.filter(({ word }) => /[\p{L}\p{N}]/u.test(word)).length;
    if (words > MAX_SENTENCE_WORDS && sentence[0]) yield { line: sentence[0].line, words };
    sentence = [];
  };
  for (const { line, text } of prose) {
    const item = /^([-*>]|\d+\.|@\w+)(\s|$)/.exec(text);
    if (text === '' || item) yield* end();
    if (text === '') continue;
    for (const word of text.slice(item?.[0].length ?? 0).split(/\s+/)) {
      sentence.push({ line, word });
      if (/[.!?:;]["')*`]*$/.test(word)) yield* end();
    }
  }
  yield* end();
}

/**
 * @param {string} folder
 * @returns {string[]} the findings, sorted by file and line
 */
export function findingsIn(folder) {
  /** @type {{ path: string, line: number, message: string }[]} */
  const findings = [];
  for (const path of trackedFiles(folder).sort()) {
    if (EXEMPT_FILES.some((pattern) => pattern.test(path))) continue;
    const file = join(folder, path);
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) continue;
    const text = readFileSync(file, 'utf8');
    if (text.includes('\0')) continue;
    const add = (/** @type {number} */ line, /** @type {string} */ message) => findings.push({ path, line, message });
    for (const [index, line] of text.split('\n').entries()) {
      const characters = line.length > MAX_LINE_CHARACTERS ? [...line].length : line.length;
      if (characters > MAX_LINE_CHARACTERS && !LONG_LINES.test(path) && !ONE_URL.test(line))
        add(index + 1, `${characters} characters, at most ${MAX_LINE_CHARACTERS} are allowed`);
      if (path === 'scripts/tidy.mjs') continue;
      for (const { phrase, replacement, pattern } of bannedPatterns)
        if (pattern.test(line)) add(index + 1, `"${phrase}"; write: ${replacement}`);
    }
    for (const { line, words } of longSentences(proseIn(path, text)))
      add(line, `a sentence of ${words} words, at most ${MAX_SENTENCE_WORDS} are allowed`);
  }
  return findings
    .sort((a, b) => (a.path === b.path ? a.line - b.line : a.path < b.path ? -1 : 1))
    .map(({ path, line, message }) => `${path}:${line}: ${message}`);
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const findings = findingsIn(process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url)));
  for (const finding of findings) console.log(finding);
  process.exitCode = findings.length > 0 ? 1 : 0;
}
