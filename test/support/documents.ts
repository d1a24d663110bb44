/** Reads the Markdown documents of this repository. */

import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

const root = join(import.meta.dirname, '../..');

/** A fenced code block. */
export interface CodeBlock {
  readonly language: string;
  /** The word after the language, such as the name of the file that the block stands for. */
  readonly name: string;
  readonly code: string;
}

/** @param path relative to the repository, such as `docs/LOG.md` */
export function readDocument(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

/** The fenced code blocks of a document, in its order, without their indentation. */
export function codeBlocks(text: string): CodeBlock[] {
  return [...text.matchAll(/^( *)```(\S*) ?(.*)\n([\s\S]*?)^\1```$/gm)].map(([, indent, language, name, code]) => ({
    language: language!,
    name: name!,
    code: code!.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  }));
}

/**
 * The code of the only block with a name.
 * @param document relative to the repository, such as `docs/NBD.md`
 */
export function blockOf(document: string, name: string): string {
  const found = codeBlocks(readDocument(document)).filter((block) => block.name === name);
  if (found.length !== 1) throw new Error(`${document} has ${found.length} blocks ${name}`);
  return found[0]!.code;
}

/** The lines of a document outside code blocks, without lines of tables. */
export function proseLines(text: string): string[] {
  const prose = text.replace(/^( *)```[\s\S]*?^\1```$/gm, '');
  return prose.split('\n').filter((line) => !line.startsWith('|'));
}

/** As {@link allDocuments}, without what `npm run api` makes. */
export function ownDocuments(): string[] {
  return allDocuments().filter((path) => !/^docs\/(api\/|API\.md$)/.test(path));
}

const SKIPPED = /^(node_modules|dist|build|coverage|\.git|\.ci\/nodes|\.dist-\d+.*)$/;

/** The paths of all Markdown files, relative to the repository. */
export function allDocuments(folder: string = root): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    const name = relative(root, path);
    if (SKIPPED.test(name) || entry.name === 'node_modules') return [];
    if (entry.isDirectory()) return allDocuments(path);
    return name.endsWith('.md') ? [name] : [];
  });
}
