/** The example for Next, installed and built as its users do, in Chromium. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/random.ts';
import { Chromium } from '../support/chromium.ts';
import { startSite } from '../support/site.ts';
import { describeWith } from '../support/tools.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));
const NEXT = 'node_modules/next/dist/bin/next';
const image = seededRandom(2).fill(new Uint8Array(300_001));

/** Installs and builds the example with the present package. */
async function install(folder: string): Promise<void> {
  cpSync(join(root, 'examples', 'next'), folder, { recursive: true });
  const { dependencies, ...manifest } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const { copyondemand: _, ...others } = dependencies;
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, dependencies: others }));
  const args = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
  await run('npm', args, { cwd: folder });
  // No link, which Next would follow out of its folder.
  for (const part of ['package.json', 'dist'])
    cpSync(join(root, part), join(folder, 'node_modules', 'copyondemand', part), { recursive: true });
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production' } as const;
  await run(process.execPath, [NEXT, 'build'], { cwd: folder, env });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

describeWith(['chromium'], 'the example for Next', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-next-'));
  let server: ChildProcess | undefined;
  let chromium: Chromium | undefined;

  afterAll(async () => {
    server?.kill();
    await chromium?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  test('copies an image in a client component', { timeout: 1_200_000 }, async () => {
    const example = join(folder, 'example');
    await install(example);
    mkdirSync(join(folder, 'images'));
    writeFileSync(join(folder, 'images', 'image.raw'), image);
    const site = await startSite({ folders: { '/': join(folder, 'images') } });
    const port = await freePort();
    const next = spawn(process.execPath, [NEXT, 'start', '-H', '127.0.0.1', '-p', `${port}`], { cwd: example });
    server = next;
    await new Promise<void>((resolve, reject) => {
      next.stdout.on('data', (text) => `${text}`.includes('Ready') && resolve());
      next.once('exit', (code) => reject(new Error(`next ended with ${code}`)));
    });
    chromium = await Chromium.start(join(folder, 'profile'));
    const page = await chromium.newPage();
    await page.goto(`http://127.0.0.1:${port}/?image=${site.url}/image.raw`);
    await page.waitForFunction("document.querySelector('output').textContent.includes('are copied.')");
    expect(await page.textContent('output')).toBe(
      `The first bytes are ${image.subarray(0, 8)}. All ${image.length} bytes are copied.`,
    );
    await site.close();
  });
});
