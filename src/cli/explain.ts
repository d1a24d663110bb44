/** `copyondemand explain`: prints what docs/ERRORS.md says of an error code. */

import { readFileSync } from 'node:fs';
import { UsageError } from './failure.ts';

/** Prints the section of a code, as in `explain COD_LOCKED` or `explain locked`. Without a code it lists all codes. */
export function explain(code?: string): void {
  process.stdout.write(code === undefined ? list(sections()) : sectionOf(sections(), code));
}

/** Returns all codes. */
export function codes(): string[] {
  return [...sections().keys()];
}

function sections(): Map<string, string> {
  return sectionsOf(readFileSync(new URL('../../docs/ERRORS.md', import.meta.url), 'utf8'));
}

/** Returns the text of each code. */
export function sectionsOf(text: string): Map<string, string> {
  const [, ...sections] = text.split(/^## /m);
  return new Map(
    sections.map((section) => {
      const [code = '', ...lines] = section.split('\n');
      return [code, lines.join('\n').trim()];
    }),
  );
}

function sectionOf(sections: ReadonlyMap<string, string>, given: string): string {
  const name = given.toUpperCase().replaceAll(/[- ]/g, '_');
  const code = name.startsWith('COD_') ? name : `COD_${name}`;
  const section = sections.get(code);
  if (section === undefined)
    throw new UsageError(`there is no code ${given}: \`copyondemand explain\` lists all codes`);
  return `${code}\n\n${section.replaceAll(/^```.*\n/gm, '')}\n`;
}

/** Returns a line for each code: its name and the first sentence of its section. */
function list(sections: ReadonlyMap<string, string>): string {
  const width = Math.max(...[...sections.keys()].map((code) => code.length));
  return [...sections].map(([code, text]) => `${code.padEnd(width)}  ${text.split('\n', 1)[0]}\n`).join('');
}
