/** Runs the examples in the README of the testing module unchanged. */

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterAll, beforeAll, expect, it } from 'vitest';

const readme = await readFile(new URL('../../src/testing/README.md', import.meta.url), 'utf8');
const entry = fileURLToPath(new URL('../../src/testing/index.ts', import.meta.url));
const index = fileURLToPath(new URL('../../src/index.ts', import.meta.url));
const memfs = fileURLToPath(new URL('../../src/memfs.ts', import.meta.url));

function snippet(name: string): string {
  const found = readme.split(`\`\`\`js ${name}\n`)[1]?.split('```')[0];
  if (found === undefined) throw new Error(`src/testing/README.md has no example ${name}`);
  return found;
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cod-readme-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Runs a program with a log module, and returns its output. Rejects if the program ends with an error. */
async function run(log: string, program = snippet('test.mjs')): Promise<{ stdout: string }> {
  await writeFile(join(folder, 'test.mjs'), program);
  await writeFile(join(folder, 'my-log.mjs'), log);
  const outfile = join(folder, 'bundle.mjs');
  await build({
    entryPoints: [join(folder, 'test.mjs')],
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    // memfs is CommonJS and calls `require`.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    alias: { 'copyondemand/testing': entry, 'copyondemand/memfs': memfs, copyondemand: index },
    // Where memfs is found for a program in another folder.
    nodePaths: [fileURLToPath(new URL('../../node_modules', import.meta.url))],
    logLevel: 'silent',
  });
  return promisify(execFile)(process.execPath, [outfile]);
}

it('runs its example of 20 lines', async () => {
  expect(snippet('test.mjs').trimEnd().split('\n').length).toBeLessThanOrEqual(22);
  const { stdout } = await run(snippet('my-log.mjs'));
  expect(stdout).toMatch(/crashes: \d\d/);
});

it('records what its example does, and replays it', async () => {
  const code = `import { FileSystemRecorder, replayTrace } from 'copyondemand/testing';
    import { memfsFileSystem } from 'copyondemand/memfs';
    const fileSystem = memfsFileSystem();
    const useIt = async (files) => (await files.open('file', { create: true })).write(new Uint8Array(3), 0);
    ${snippet('trace.mjs')}`;
  const { stdout } = await run(snippet('my-log.mjs'), code);
  expect(stdout).toMatch(/open[\s\S]*write/);
});

it('checks the history of its example', async () => {
  const code = `import { bytesSource, openDevice } from 'copyondemand';
    import { memfsFileSystem } from 'copyondemand/memfs';
    import { checkLinearizable, SectorHistory } from 'copyondemand/testing';
    const source = bytesSource(new Uint8Array(65_536));
    const disk = await openDevice({ source, fileSystem: memfsFileSystem(), target: 'disk' });
    ${snippet('history.mjs')}
    await disk.close();`;
  const { stdout } = await run(snippet('my-log.mjs'), code);
  expect(stdout).toBe('linearizable\n');
});

it('fails its example without a sync, with a line that replays the failure', async () => {
  const log = snippet('my-log.mjs');
  const without = log.replace('      await file.sync();\n', '');
  expect(without).not.toBe(log);
  await expect(run(without)).rejects.toMatchObject({
    stderr: expect.stringMatching(/was promised[\s\S]*replay: \{"version":1,/) as unknown,
  });
});
