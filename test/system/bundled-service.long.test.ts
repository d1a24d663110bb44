/** A Node service that bundles the package and runs in a folder without node_modules. */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import commonjsModule from '@rollup/plugin-commonjs';
import { nodeResolve } from '@rollup/plugin-node-resolve';
import { build } from 'esbuild';
import { rollup } from 'rollup';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import webpack from 'webpack';

/** These declarations describe a CommonJS module; TypeScript expects its default export one level deeper. */
const commonjs = commonjsModule as unknown as typeof commonjsModule.default;
const root = fileURLToPath(new URL('../../', import.meta.url));

/** Copies an image from an HTTP server and prints which transport fetched the image. */
const SERVICE = `
import { httpSource, openDevice } from 'copyondemand';
import { nodeFileSystem } from 'copyondemand/node';
import { serveNbd } from 'copyondemand/nbd';
async function main() {
  const [url, folder] = process.argv.slice(2);
  const source = await httpSource(url);
  const device = await openDevice({ source, fileSystem: nodeFileSystem(folder), target: 'disk' });
  const bytes = new Uint8Array(10);
  await device.read(bytes, 5);
  await device.hydrated;
  await device.finish();
  await source.close();
  console.log(new TextDecoder().decode(bytes), typeof serveNbd);
}
main();
`;
const IMAGE = Buffer.alloc(1 << 20, 'abcdefghij');
/** CommonJS packages in an ES module bundle of esbuild load Node's modules through this function. */
const REQUIRE = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);";

let folder: string;
let entry: string;
let server: Server;
const userAgents = new Set<string | undefined>();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cod-bundled-'));
  await mkdir(join(folder, 'in', 'node_modules'), { recursive: true });
  await symlink(root, join(folder, 'in', 'node_modules', 'copyondemand'));
  entry = join(folder, 'in', 'main.mjs');
  await writeFile(entry, SERVICE);
  server = createServer((request, response) => {
    userAgents.add(request.headers['user-agent']);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const piece = IMAGE.subarray(Number(from), Number(to) + 1);
    response.writeHead(206, { etag: '"1"', 'content-range': `bytes ${from}-${to}/${IMAGE.length}` });
    response.end(piece);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true, force: true });
});

async function withEsbuild(format: 'esm' | 'cjs', out: string): Promise<string> {
  const outfile = join(out, format === 'esm' ? 'main.mjs' : 'main.cjs');
  const banner = format === 'esm' ? { banner: { js: REQUIRE } } : {};
  await build({
    ...banner,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    format,
    logLevel: 'silent',
  });
  return outfile;
}

async function withRollup(conditions: string[], out: string): Promise<string> {
  // undici requires node:sqlite lazily. The plugin would import it at startup, which fails in Node 20.
  const plugins = [
    nodeResolve({ preferBuiltins: true, exportConditions: conditions }),
    commonjs({ ignore: ['node:sqlite'] }),
  ];
  const bundle = await rollup({ input: entry, plugins, onwarn: () => {} });
  await bundle.write({ dir: out, format: 'es', entryFileNames: 'main.mjs', chunkFileNames: '[name]-[hash].mjs' });
  await bundle.close();
  return join(out, 'main.mjs');
}

async function withWebpack(out: string): Promise<string> {
  const compiler = webpack({
    mode: 'none',
    target: 'node20',
    entry,
    output: { path: out, filename: 'main.cjs' },
  });
  const stats = await promisify(compiler.run.bind(compiler))();
  await promisify(compiler.close.bind(compiler))();
  const { errors, warnings } = stats!.toJson({ all: false, errors: true, warnings: true });
  expect([...errors!, ...warnings!].map(({ message }) => message)).toEqual([]);
  return join(out, 'main.cjs');
}

describe('a bundled service runs in an empty folder', () => {
  /** The expected transport: undici, or `fetch` where the bundler does not set the condition `node`. */
  const cases: [name: string, bundle: (out: string) => Promise<string>, transport: 'undici' | 'fetch'][] = [
    ['esbuild, as an ES module', (out) => withEsbuild('esm', out), 'undici'],
    ['esbuild, as CommonJS', (out) => withEsbuild('cjs', out), 'undici'],
    ['Rollup', (out) => withRollup(['node'], out), 'undici'],
    ['Rollup without the condition node', (out) => withRollup([], out), 'fetch'],
    ['webpack', withWebpack, 'undici'],
  ];
  test.each(cases)('%s', async (name, bundle, transport) => {
    const out = join(folder, name.replaceAll(/\W+/g, '-'));
    const data = `${out}-data`;
    await mkdir(out);
    await mkdir(data);
    const program = await bundle(out);
    userAgents.clear();
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const { stdout } = await promisify(execFile)(process.execPath, [program, url, data], { cwd: data });
    expect(stdout).toBe('fghijabcde function\n');
    expect([...userAgents]).toEqual([transport === 'undici' ? 'copyondemand' : 'node']);
    expect(existsSync(join(data, 'disk'))).toBe(true);
  });
});
