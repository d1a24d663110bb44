/** Runs the programs in docs/OPERATIONS.md, docs/NBD.md and docs/METRICS.md with the built package. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { transform } from 'esbuild';
import { expect, onTestFinished, test } from 'vitest';
import { IMAGE_BYTES, imageBytes, makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { blockOf } from '../support/documents.ts';
import { startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';

const root = join(import.meta.dirname, '../..');
const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  exports: Record<string, { default: string }>;
};

/** Runs a program in TypeScript in a folder, and returns what it prints. */
async function run(folder: string, program: string): Promise<string> {
  const { code } = await transform(program, { loader: 'ts', format: 'esm', target: 'es2023' });
  const path = join(folder, 'program.mjs');
  const entry = (name: string): string => pathToFileURL(join(root, exports[name]!.default)).href;
  writeFileSync(
    path,
    code.replaceAll(/from "copyondemand(\/\w+)?"/g, (_, part = '') => `from ${JSON.stringify(entry(`.${part}`))}`),
  );
  const child = spawn(process.execPath, [path], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const closed = once(child, 'close');
  const printed = await text(child.stdout);
  expect((await closed)[0]).toBe(0);
  return printed;
}

test('reads are recorded, and order the next copy', async () => {
  const code = blockOf('docs/OPERATIONS.md', 'recorder').replace(
    /^\/\/ \.\.\. later.*$/m,
    'await device.read(new Uint8Array(100), 8192);',
  );
  const printed = await run(
    temporaryDirectory(),
    `import { bytesSource, openDevice, ReadRecorder } from 'copyondemand';
    import { nodeFileSystem } from 'copyondemand/node';
    const source = bytesSource(new Uint8Array(65_536), { identity: 'image' });
    const fileSystem = nodeFileSystem();
    const target = 'disk';
    ${code}
    console.log(JSON.stringify(order));
    for (const each of [device, next]) await each.close();`,
  );
  expect(JSON.parse(printed)).toEqual([{ offset: 8192, length: 4096, atMs: expect.any(Number) }]);
});

test('a program steers a copy that another process owns', async () => {
  const folder = temporaryDirectory();
  makeImage(folder, 'image.raw');
  await startServe(join(folder, 'image.raw'), join(folder, 'disk.raw'), '--socket', join(folder, 's'), '--rate', '16k');
  const code = blockOf('docs/OPERATIONS.md', 'client').replace(
    /console\.log\(event\);/,
    '{ console.log(event); break; }',
  );
  const printed = await run(
    folder,
    `${code}\nconsole.log(state, (await control.status()).rateBytesPerSecond, lastError);`,
  );
  expect(printed).toMatch(/^\{\n? *type: '/);
  expect(printed).toMatch(/hydrat\w+ 20971520 null\n$/);
});

test('a program exports a device twice', async () => {
  const folder = temporaryDirectory();
  const source = await serveFile(makeImage(folder, 'image.raw'));
  onTestFinished(() => source.close());
  const reads = `
    import { nbdSource } from 'copyondemand/nbd';
    const client = await nbdSource('nbd+unix:///look?socket=${join(folder, 's')}');
    const bytes = new Uint8Array(${IMAGE_BYTES});
    await client.read(bytes, 0);
    await client.close();
    import { writeFileSync } from 'node:fs';
    writeFileSync('read', bytes);`;
  const code = blockOf('docs/NBD.md', 'exports')
    .replace('https://images.example/disk.raw', source.url)
    .replace('/run/disk.sock', join(folder, 's'))
    .replace('// Later:', reads);
  expect(await run(folder, code)).toContain(`nbd+unix:///disk?socket=${join(folder, 's')}`);
  expectBytes(readFileSync(join(folder, 'read')), imageBytes());
});

test('a program subscribes to what the source does', async () => {
  const printed = await run(
    temporaryDirectory(),
    `${blockOf('docs/METRICS.md', 'subscribe')}
    import { bytesSource, openDevice } from 'copyondemand';
    import { nodeFileSystem } from 'copyondemand/node';
    const source = bytesSource(new Uint8Array(65_536).fill(1));
    const device = await openDevice({ source, fileSystem: nodeFileSystem(), target: 'disk', hydrate: false });
    await device.read(new Uint8Array(4096), 0);
    await device.close();`,
  );
  expect(printed).toMatch(/^disk: demand, 4096 bytes in [\d.]+ ms\n$/);
});
