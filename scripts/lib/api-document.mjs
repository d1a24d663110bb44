/** Makes docs/API.md from the docstrings: a heading for each export, member and option of each entry. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Application } from 'typedoc';
import { root, StepError } from './steps.mjs';

const MAX_LINE_CHARACTERS = 120;

const INTRODUCTION = `# API

Every export of every entry.
\`npm run api\` makes this document from the docstrings.
The [README](../README.md) shows the common uses, and [ERRORS.md](ERRORS.md) explains the codes of a \`CodError\`.
`;

/**
 * @typedef {{ entry: string, module: string }} Entry an entry of the package, and its module in src without extension
 * @typedef {{ entry: string, name: string, lines: string[] }} Page a page of typedoc: its entry, file name and text
 */

/**
 * Returns the document.
 * @param {readonly Entry[]} entries
 * @throws {StepError} for each warning of typedoc, such as a link to an unknown name
 */
export async function apiDocument(entries) {
  const folder = mkdtempSync(join(tmpdir(), 'cod-typedoc-'));
  try {
    await runTypedoc(entries, folder);
    const pages = entries.map(({ entry, module }) => {
      const name = `${module.replace(/\/index$/, '')}.md`;
      const text = readFileSync(join(folder, name), 'utf8');
      return { entry, name, lines: text.split('\n').filter((line) => line !== '***') };
    });
    return joined(pages);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * Has typedoc write one page for each entry.
 * @param {readonly Entry[]} entries
 * @param {string} folder
 */
async function runTypedoc(entries, folder) {
  const app = await Application.bootstrapWithPlugins({
    entryPoints: entries.map(({ module }) => join(root, 'src', `${module}.ts`)),
    tsconfig: join(root, 'tsconfig.json'),
    basePath: join(root, 'src'),
    out: folder,
    plugin: [fileURLToPath(import.meta.resolve('typedoc-plugin-markdown'))],
    readme: 'none',
    excludePrivate: true,
    excludeInternal: true,
    excludeExternals: true,
    disableSources: true,
    skipErrorChecking: true,
    sort: ['source-order'],
    logLevel: 'None',
    ...{ outputFileStrategy: 'modules', hidePageHeader: true, hideBreadcrumbs: true, hideGroupHeadings: true },
    ...{ useCodeBlocks: true },
  });
  /** @type {string[]} */
  const warnings = [];
  app.logger.warn = (/** @type {string} */ message) => warnings.push(message);
  app.logger.error = (/** @type {string} */ message) => warnings.push(message);
  // Only some entries export the class that all docstrings name.
  app.converter.addUnknownSymbolResolver(({ symbolReference }) =>
    symbolReference?.path?.[0]?.path === 'CodError' ? '#coderror' : undefined,
  );
  const project = await app.convert();
  if (project !== undefined) await app.generateOutputs(project);
  if (project === undefined || warnings.length > 0) throw new StepError('typedoc warns', warnings.join('\n'), 1);
}

/** Headings of typedoc that only group members. */
const GROUPS = new Set(['Accessors', 'Constructors', 'Methods', 'Properties']);

/** Headings of typedoc that stand above a text about the same thing. */
const SECTIONS = new Set([
  ...['Example', 'Extended by', 'Extends', 'Implementation of', 'Implements', 'Inherited from', 'Overrides'],
  ...['Parameters', 'Returns', 'See', 'Throws', 'Type Declaration', 'Type Parameters', 'Type declaration'],
]);

/** Where a member comes from, which the type above it says already. */
const ORIGIN = /^\*\*(Implementation of|Inherited from|Overrides)\*\*\n\n.*\n\n?/gm;

/**
 * Joins the pages.
 *
 * - The heading of a member names its class or interface, so that it can be found, and has a stable anchor.
 * - A parameter has a heading, and an option in it too: `options.limitMs`.
 * @param {readonly Page[]} pages
 */
function joined(pages) {
  const anchors = new Anchors();
  /** The anchors in the document of those in the pages: `node.md#anchor`. @type {Map<string, string>} */
  const moved = new Map();
  const texts = pages.map(({ entry, name: page, lines }) => {
    const old = new Anchors();
    let owner = '';
    /** The level of the heading above parameters, or 0. */
    let parametersLevel = 0;
    let parameter = '';
    let section = '';
    return headingsReplaced(lines, (level, title, index) => {
      const from = `${page}#${old.of(title)}`;
      if (level <= parametersLevel) parametersLevel = 0;
      if (GROUPS.has(title)) return '';
      if (SECTIONS.has(title)) {
        if (title === 'Parameters') parametersLevel = level;
        const isRepeated = title === section;
        section = title;
        return isRepeated ? '' : `**${title}**`;
      }
      section = '';
      const name = title.replace(/\?$/, '');
      let heading = `#### ${owner}.${name}`;
      if (parametersLevel > 0) {
        // typedoc has no more than six levels, so an option may have that of its parameter.
        const isOption = level > parametersLevel + 1 || !signatureBefore(lines, index).includes(name);
        if (!isOption) parameter = name;
        heading = `##### ${isOption ? `${parameter}.` : ''}${name}`;
      } else if (level === 1) heading = `## ${entry}`;
      else if (level === 2) {
        owner = name.replace(/\(\)$/, '');
        heading = `### ${name}`;
      }
      moved.set(from, anchors.of(heading.replace(/^#+ /, '')));
      return heading;
    });
  });
  const linked = texts.map((text, index) =>
    text.replace(ORIGIN, '').replace(/\]\((?:\.\.\/)*([\w/-]+\.md)?(?:#([\w-]+))?\)/g, (link, file, anchor) => {
      const name = file ?? pages[index]?.name;
      const entry = pages.find((page) => page.name === name)?.entry;
      const to = anchor === undefined && entry !== undefined ? new Anchors().of(entry) : moved.get(`${name}#${anchor}`);
      return to === undefined ? link : `](#${to})`;
    }),
  );
  const list = pages.map(({ entry }) => `- [${entry}](#${new Anchors().of(entry)})`).join('\n');
  const parts = [INTRODUCTION, list, ...linked].map((part) => part.trim());
  return `${folded(parts.join('\n\n').replace(/\n{3,}/g, '\n\n'))}\n`;
}

/**
 * Returns the names of the parameters in the last code above a line.
 * @param {readonly string[]} lines
 * @param {number} index
 */
function signatureBefore(lines, index) {
  const end = lines.lastIndexOf('```', index);
  const code = lines.slice(lines.lastIndexOf('```ts', end), end).join(' ');
  return (/\((.*?)\)/.exec(code)?.[1] ?? '').split(/\W+/);
}

/**
 * Replaces each heading outside code.
 * @param {readonly string[]} lines
 * @param {(level: number, title: string, index: number) => string} replacement
 */
function headingsReplaced(lines, replacement) {
  return mapProse(lines, (line, index) => {
    const [, marks, title] = /^(#+) (.*)$/.exec(line) ?? [];
    return marks === undefined || title === undefined ? line : replacement(marks.length, title, index);
  }).join('\n');
}

/**
 * Breaks long lines outside code.
 * @param {string} text
 */
function folded(text) {
  const fold = new RegExp(`(?=.{${MAX_LINE_CHARACTERS + 1}})(.{1,${MAX_LINE_CHARACTERS}}) (?=\\S)`, 'g');
  return mapProse(text.split('\n'), (line) => {
    const indent = /^(?:- | *)/.exec(line)?.[0].length ?? 0;
    return line.replace(fold, `$1\n${' '.repeat(indent)}`);
  }).join('\n');
}

/**
 * Changes the lines outside code.
 * @param {readonly string[]} lines
 * @param {(line: string, index: number) => string} change
 */
function mapProse(lines, change) {
  let isCode = false;
  return lines.map((line, index) => {
    const isFence = line.startsWith('```');
    if (isFence) isCode = !isCode;
    return isFence || isCode ? line : change(line, index);
  });
}

/** The anchors that GitHub gives headings. */
class Anchors {
  /** @type {Map<string, number>} */
  #seen = new Map();

  /** @param {string} heading */
  of(heading) {
    const plain = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .replaceAll('\\', '')
      .toLowerCase();
    const anchor = plain.replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '').replaceAll(' ', '-');
    const count = this.#seen.get(anchor) ?? 0;
    this.#seen.set(anchor, count + 1);
    return count === 0 ? anchor : `${anchor}-${count}`;
  }
}
