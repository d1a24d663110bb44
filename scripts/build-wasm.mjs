// Builds the wasm core with AssemblyScript: `node scripts/build-wasm.mjs [debug|release]`. Without an argument: both.
//
// Also writes two files into src/wasm/generated:
// - interface.ts: the signatures and field offsets that src/ needs
// - core-bytes.ts: the release build as a string, which src/wasm/core.ts inlines
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

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
 * Writes the core as a string of printable characters. A byte plus SHIFT, modulo 256, is a number of COUNT characters
 * from FIRST on. One of the three characters behind them says that the next number is larger by COUNT, 2 COUNT or
 * 3 COUNT. A page loads it compressed: base64 hides repetitions and takes 1 kB more with gzip, and escapes take 0.3 kB
 * more. SHIFT is that of the shortest result.
 */
async function writeBytes() {
  const [FIRST, COUNT, SHIFT] = [0x28, 84, 1];
  const bytes = await readFile(`${root}build/release/core.wasm`);
  const characters = Array.from(bytes, (byte) => {
    const number = (byte + SHIFT) % 256;
    const larger = Math.floor(number / COUNT);
    const codes = [...(larger === 0 ? [] : [FIRST + COUNT + larger - 1]), FIRST + (number % COUNT)];
    return String.fromCharCode(...codes).replace('\\', '\\\\');
  });
  const text = `// Written by scripts/build-wasm.mjs from assembly/.

/** The code of the first character of {@link CORE_TEXT}, and how many characters are numbers. */
export const CORE_FIRST = ${FIRST};
export const CORE_COUNT = ${COUNT};
/** What was added to each byte, modulo 256. */
export const CORE_SHIFT = ${SHIFT};
/** The release build of the core. */
export const CORE_TEXT: string =
  '${characters.join('')}';
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
