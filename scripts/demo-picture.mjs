/**
 * `npm run picture`: runs the demo in a pseudo-terminal and draws its last screen as docs/demo.svg, for the README.
 *
 * The picture has colours of its own and no page behind it shows through, so it suits light and dark pages. Cells of
 * the map are shapes, because fonts draw the block characters with gaps. Each piece of text has a fixed length, so that
 * any monospace font keeps the columns.
 *
 * Needs the program `script` (Debian: bsdutils).
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { capture, ensureBuilt, ensureInstalled, root, say, script } from './lib/steps.mjs';

/** Enough for the longest line: a line that wraps would need two rows. */
const COLUMNS = 120;
const CELL = { width: 7.8, height: 18 };
const MARGIN = 14;
const FONT_PX = 13;
const BACKGROUND = '#0d1117';
const FOREGROUND = '#d6dde6';
/** @type {Record<number, string>} by SGR code */
const COLOURS = { 90: '#8b949e', 36: '#56d4dd', 33: '#e3b341', 32: '#3fb950' };
/** Block characters as rectangles of a cell: x, y, width and height as shares of it, and the opacity. */
/** @type {Record<string, [x: number, y: number, width: number, height: number, opacity: number][]>} */
const SHAPES = {
  '█': [[0, 0, 1, 1, 1]],
  '▒': [[0, 0, 1, 1, 0.6]],
  '░': [[0, 0, 1, 1, 0.3]],
  '▚': [
    [0, 0, 0.5, 0.5, 1],
    [0.5, 0.5, 0.5, 0.5, 1],
  ],
};

/**
 * @typedef {{ character: string, colour: string, bold: boolean }} Cell
 * @typedef {{ text: string, column: number, colour: string, bold: boolean }} Run cells that look alike
 */

/**
 * Returns the lines of the screen after the output, for the sequences that the demo uses.
 * @param {string} output
 */
function screenOf(output) {
  /** @type {Cell[][]} */
  const lines = [[]];
  let column = 0;
  let colour = FOREGROUND;
  let bold = false;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a terminal's control sequences
  for (const [piece, code] of output.matchAll(/\x1b\[(\d*)m|\x1b\[K|./gsu)) {
    const line = /** @type {Cell[]} */ (lines.at(-1));
    if (piece === '\r') column = 0;
    else if (piece === '\n') lines.push([]);
    else if (piece === '\x1b[K') line.length = column;
    else if (code !== undefined) {
      bold = code === '1' || (bold && code !== '0' && code !== '');
      colour = COLOURS[Number(code)] ?? FOREGROUND;
    } else line[column++] = { character: piece, colour, bold };
  }
  return lines;
}

/**
 * Splits a line into runs of cells that look alike. Two spaces end a run, because SVG draws them as one.
 * @param {Cell[]} line
 * @returns {Run[]}
 */
function runsOf(line) {
  /** @type {Run[]} */
  const runs = [];
  /** @type {Cell | undefined} */
  let last;
  line.forEach((cell, column) => {
    const { character, colour, bold } = cell;
    const isShape = character in SHAPES || (last !== undefined && last.character in SHAPES);
    const looksAlike = last?.colour === colour && last.bold === bold;
    const run = runs.at(-1);
    if (run && looksAlike && (isShape ? last?.character === character : !run.text.endsWith('  ')))
      run.text += character;
    else runs.push({ text: character, column, colour, bold });
    last = cell;
  });
  return runs.filter(({ text }) => text.trim() !== '');
}

/** @param {string} text */
const escaped = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');

/** @param {number} value */
const rounded = (value) => String(Math.round(value * 10) / 10);

/**
 * @param {Run} run
 * @param {number} row
 */
function drawn({ text, column, colour, bold }, row) {
  const [x, y] = [MARGIN + column * CELL.width, MARGIN + row * CELL.height];
  const count = [...text].length;
  const shapes = SHAPES[[...text][0] ?? ''];
  if (shapes) {
    const cells = shapes.length > 1 ? Array.from({ length: count }, (_, index) => [index, 1]) : [[0, count]];
    return cells.flatMap(([index = 0, length = 1]) =>
      shapes.map(
        ([left, top, width, height, opacity]) =>
          `<rect x="${rounded(x + (index + left) * CELL.width)}" y="${rounded(y + 2 + top * (CELL.height - 4))}" ` +
          `width="${rounded(width * length * CELL.width)}" height="${rounded(height * (CELL.height - 4))}" ` +
          `fill="${colour}"${opacity === 1 ? '' : ` opacity="${opacity}"`}/>`,
      ),
    );
  }
  const end = text.trimEnd();
  const start = end.length - end.trimStart().length;
  const look = `${colour === FOREGROUND ? '' : ` fill="${colour}"`}${bold ? ' font-weight="bold"' : ''}`;
  return [
    `<text x="${rounded(x + start * CELL.width)}" y="${y + 13}" ` +
      `textLength="${rounded((end.length - start) * CELL.width)}"${look}>${escaped(end.trimStart())}</text>`,
  ];
}

/** @param {Cell[][]} lines */
function pictureOf(lines) {
  const columns = Math.max(...lines.map((line) => line.length));
  const width = Math.ceil(2 * MARGIN + columns * CELL.width);
  const height = 2 * MARGIN + lines.length * CELL.height;
  const text = lines.map((line) => line.map(({ character }) => character).join('')).join('\n');
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="title">`,
    '<title id="title">The output of npm start</title>',
    `<desc>${escaped(text)}</desc>`,
    `<rect width="${width}" height="${height}" rx="8" fill="${BACKGROUND}"/>`,
    `<g font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="${FONT_PX}" ` +
      `fill="${FOREGROUND}">`,
    ...lines.flatMap((line, row) => runsOf(line).flatMap((run) => drawn(run, row))),
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
  const command = join(root, 'dist', 'cli', 'main.js');
  const { NO_COLOR: _, ...env } = process.env;
  const output = await capture(
    'script',
    ['-qec', `stty cols ${COLUMNS} rows 50; '${process.execPath}' '${command}' demo`, '/dev/null'],
    { env: { ...env, TERM: 'xterm-256color' } },
  );
  const lines = screenOf(output);
  const hasText = (/** @type {Cell[]} */ line) => line.some(({ character }) => character !== ' ');
  const path = join(root, 'docs', 'demo.svg');
  writeFileSync(path, pictureOf(lines.slice(lines.findIndex(hasText), lines.findLastIndex(hasText) + 1)));
  say(`drawn: ${path}`);
});
