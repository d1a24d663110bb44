/** Every relative link of every Markdown file leads to a file of the repository, and to a heading if it names one. */

import { existsSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, it } from 'vitest';
import { allDocuments, readDocument } from '../support/documents.ts';

const root = join(import.meta.dirname, '../..');
const documents = allDocuments();

/** A document without its code: brackets in code are no links. */
const withoutCode = (text: string): string => text.replace(/^( *)```[\s\S]*?^\1```$/gm, '').replace(/`[^`\n]*`/g, '``');

const known = new Map<string, Set<string>>();

/** The anchors that GitHub gives the headings of a document. */
function anchorsOf(path: string): Set<string> {
  const anchors = known.get(path) ?? anchorsIn(readDocument(path));
  known.set(path, anchors);
  return anchors;
}

function anchorsIn(document: string): Set<string> {
  const seen = new Map<string, number>();
  const text = document.replace(/^( *)```[\s\S]*?^\1```$/gm, '');
  const anchors = [...text.matchAll(/^#{1,6} +(.+?) *#*$/gm)].map(([, heading]) => {
    const plain = heading!.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const anchor = plain.replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '').replaceAll(' ', '-');
    const count = seen.get(anchor) ?? 0;
    seen.set(anchor, count + 1);
    return count === 0 ? anchor : `${anchor}-${count}`;
  });
  return new Set(anchors);
}

it('finds the documents', () => {
  expect(documents).toEqual(expect.arrayContaining(['README.md', 'docs/FORMAT.md', 'src/testing/README.md']));
});

it.each(documents)('every relative link of %s leads to something', (path) => {
  const links = [...withoutCode(readDocument(path)).matchAll(/\]\(<?([^)\s>]+)>?(?: "[^"]*")?\)/g)].map(
    ([, to]) => to!,
  );
  const broken = links
    .filter((link) => !/^[a-z][a-z+.-]*:/i.test(link))
    .filter((link) => {
      const [file = '', anchor] = link.split('#');
      const target = file === '' ? path : normalize(join(dirname(path), file));
      if (target.startsWith('..') || !existsSync(join(root, target))) return true;
      if (anchor === undefined) return false;
      return statSync(join(root, target)).isDirectory() || !anchorsOf(target).has(anchor);
    });
  expect(broken).toEqual([]);
});
