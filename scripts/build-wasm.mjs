// Builds the wasm core with AssemblyScript: `node scripts/build-wasm.mjs [debug|release]`. Without an argument: both.
//
// Also writes two files into src/wasm/generated:
// - interface.ts: the signatures and field offsets that src/ needs
// - core-bytes.ts: the release build as a string, which src/wasm/core.ts inlines
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

/** Characters by how often a page's worker has them, the most frequent first, without quotes and the backslash. */
const CHARACTERS = 'teisr.n)( ao,h=lc#{}duf;:wyg0mpb&v>?!k1+O2C$|S-[]M64*IzxED3R<U5B_APN/8T79LFHWjqKVY%JZ^GXQ~@';

const root = fileURLToPath(new URL('..', import.meta.url));
const generated = new URL('../src/wasm/generated/', import.meta.url);

const asked = process.argv.slice(2);
const known = ['debug', 'release'];
const unknown = asked.filter((target) => !known.includes(target));
if (unknown.length > 0) {
  console.error(`build-wasm: unknown target ${unknown.join(', ')}: use ${known.join(' or ')}`);
  process.exit(2);
}

await mkdir(generated, { recursive: true });
for (const target of asked.length > 0 ? asked : known) {
  await compile(['assembly/index.ts', '--target', target]);
  const { size } = await stat(`${root}build/${target}/core.wasm`);
  console.log(`build/${target}/core.wasm: ${size} bytes`);
  if (target === 'release') await writeBytes();
}
await writeInterface();

/** @param {string[]} args */
async function compile(args) {
  const { error, stderr } = await asc.main([...args, '--config', 'asconfig.json', '--baseDir', root]);
  if (!error) return;
  console.error(stderr.toString());
  process.exit(1);
}

/**
 * Writes the core as a string. A byte plus SHIFT, modulo 256, is a number of COUNT characters. One of three more says
 * that the next number is larger by COUNT, 2 COUNT or 3 COUNT. A page loads the string compressed: base64 hides
 * repetitions and takes 1 kB more with gzip, and escapes take 0.3 kB more. The most frequent numbers have the
 * characters that are the most frequent in code, since both share gzip's table of lengths: that saves 0.25 kB. SHIFT is
 * that of the shortest result.
 */
async function writeBytes() {
  const [COUNT, SHIFT] = [84, 1];
  const bytes = await readFile(`${root}build/release/core.wasm`);
  const numbers = Array.from(bytes).flatMap((byte) => {
    const number = (byte + SHIFT) % 256;
    const larger = Math.floor(number / COUNT);
    return [...(larger === 0 ? [] : [COUNT + larger - 1]), number % COUNT];
  });
  const uses = new Array(COUNT + 3).fill(0);
  for (const number of numbers) uses[number]++;
  /** @type {string[]} */
  const alphabet = [];
  const byUse = [...uses.keys()].sort((one, other) => uses[other] - uses[one]);
  for (const [rank, number] of byUse.entries()) alphabet[number] = CHARACTERS[rank] ?? '';
  const text = `// Written by scripts/build-wasm.mjs from assembly/.

/** How many of the characters are numbers. */
export const CORE_COUNT = ${COUNT};
/** What was added to each byte, modulo 256. */
export const CORE_SHIFT = ${SHIFT};
/** The characters of {@link CORE_TEXT}, in the order of their numbers. */
export const CORE_ALPHABET: string =
  '${alphabet.join('')}';
/** The release build of the core. */
export const CORE_TEXT: string =
  '${numbers.map((number) => alphabet[number]).join('')}';
`;
  await writeFile(new URL('core-bytes.ts', generated), text);
}

/**
 * Writes interface.ts. The signatures come from the compiler's declarations, the offsets from constants of the module.
 */
async function writeInterface() {
  await compile(['assembly/interface.ts', '--target', 'interface']);
  const module = new WebAssembly.Module(await readFile(`${root}build/interface/core.wasm`));
  const { exports } = new WebAssembly.Instance(module);
  const declarations = await readFile(`${root}build/interface/core.d.ts`, 'utf8');

  // In src/, handles and booleans are numbers.
  const signatures = [...declarations.matchAll(/^ {2}export function (\w+)\((.*)\): (.+);$/gm)].map(
    ([, name, parameters = '', result]) =>
      `  ${name}(${parameters.replace(/: [^,]+/g, ': number')}): ${result === 'void' ? 'void' : 'number'};`,
  );
  // With bindings the compiler also exports its runtime, such as `__new`. The core exports none of it.
  const functions = WebAssembly.Module.exports(module).filter(
    ({ kind, name }) => kind === 'function' && !name.startsWith('__'),
  );
  if (signatures.length !== functions.length)
    throw new Error(`core.d.ts declares ${signatures.length} functions, but the module exports ${functions.length}`);

  /** @type {Map<string, string[]>} */
  const tables = new Map();
  for (const { name, kind } of WebAssembly.Module.exports(module)) {
    if (kind !== 'global' || name.startsWith('__')) continue;
    const [type = '', field] = name.split('_');
    const constant = type.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
    const offset = /** @type {WebAssembly.Global} */ (exports[name]).value;
    tables.set(constant, [...(tables.get(constant) ?? []), `  ${field}: ${offset},`]);
  }
  const offsets = [...tables].map(
    ([constant, fields]) => `export const ${constant} = {\n${fields.join('\n')}\n} as const;`,
  );

  const text = `// Written by scripts/build-wasm.mjs from assembly/interface.ts.

/** The functions of the core, as assembly/index.ts declares them. Handles are addresses, and booleans 0 or 1. */
export interface CoreExports {
${signatures.join('\n')}
}

// The offsets of fields in what a handle points to.
${offsets.join('\n')}
`;
  await writeFile(new URL('interface.ts', generated), text);
}
