// Builds the wasm core with AssemblyScript: `node scripts/build-wasm.mjs [debug|release]`, both if none is named.
// The release build is also written as base64 into src/wasm/generated/core-bytes.ts, which src/wasm/core.ts inlines.
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

const root = fileURLToPath(new URL('..', import.meta.url));
const generated = new URL('../src/wasm/generated/', import.meta.url);

const asked = process.argv.slice(2);
const known = ['debug', 'release'];
const unknown = asked.filter((target) => !known.includes(target));
if (unknown.length > 0) {
  console.error(`build-wasm: no target named ${unknown.join(', ')}; there are ${known.join(' and ')}`);
  process.exit(2);
}

for (const target of asked.length > 0 ? asked : known) {
  const { error, stderr } = await asc.main(['--config', 'asconfig.json', '--target', target, '--baseDir', root]);
  if (error) {
    console.error(stderr.toString());
    process.exit(1);
  }
  const { size } = await stat(`${root}build/${target}/core.wasm`);
  console.log(`build/${target}/core.wasm: ${size} bytes`);
  if (target === 'release') await inline();
}

async function inline() {
  const bytes = await readFile(`${root}build/release/core.wasm`);
  const text = `// Written by scripts/build-wasm.mjs from assembly/.

/** The release build of the core, in base64. */
export const coreBase64: string =
  '${bytes.toString('base64')}';
`;
  await mkdir(generated, { recursive: true });
  await writeFile(new URL('core-bytes.ts', generated), text);
}
