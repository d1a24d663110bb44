/**
 * `node scripts/reading-ease.mjs [--print]`: the reading ease of each document, by the formula of Flesch (1948):
 * 206.835 − 1.015 × words per sentence − 84.6 × syllables per word.
 *
 * 60 to 70 is plain English, and 90 is very easy. A document below {@link LEAST_EASE} is printed, and the exit code is
 * 1. Only prose counts: neither headings, tables and code, nor the addresses of links, nor lists of sources.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { flesch } from 'flesch';
import { syllable } from 'syllable';
import { root, say, script } from './lib/steps.mjs';
import { trackedFiles } from './lib/tracked-files.mjs';

const LEAST_EASE = 70;

/** Below this, the formula says little. */
const LEAST_WORDS = 100;

/**
 * Returns the sentences of a document in Markdown.
 * @param {string} text
 */
function sentencesOf(text) {
  return text
    .replace(/^( *)```[\s\S]*?^\1```$/gm, '')
    .replace(/^(#|\||<!--|\d+\. \[[^\]]*\]\([^)]*\)$).*$/gm, '')
    .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/`[^`]*`/g, 'code')
    .split(/(?<=[.:!?])\s+|\n\s*\n|\n\s*(?:-|\d+\.) /)
    .map((sentence) => sentence.match(/\p{L}[\p{L}’'-]*/gu) ?? [])
    .filter((words) => words.length > 0);
}

await script(async () => {
  // What `npm run api` makes has no prose of its own.
  const paths = trackedFiles(root).filter((path) => path.endsWith('.md') && !/^docs\/(api\/|API\.md$)/.test(path));
  let hard = 0;
  for (const path of paths) {
    const sentences = sentencesOf(readFileSync(join(root, path), 'utf8'));
    const words = sentences.flat();
    if (words.length < LEAST_WORDS) continue;
    const syllables = words.reduce((sum, word) => sum + syllable(word), 0);
    const ease = flesch({ sentence: sentences.length, word: words.length, syllable: syllables });
    if (ease < LEAST_EASE) hard += 1;
    if (ease < LEAST_EASE || process.argv.includes('--print')) say(`${path}: ${ease.toFixed(0)}`);
  }
  return hard > 0 ? 1 : 0;
});
