/**
 * For the whole run: bundled workers, and a server of another origin than the page, which has one image under names for
 * several behaviours.
 */

import { rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import type { TestProject } from 'vitest/node';
import { IMAGE_BYTES, imageBytes } from './image.ts';

declare module 'vitest' {
  interface ProvidedContext {
    serverUrl: string;
    /** The path of the folder of the bundled workers, for a page. */
    workersPath: string;
  }
}

const root = join(import.meta.dirname, '../..');
const COMPRESSIONS: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array>> = {
  gzip: gzipSync,
  br: brotliCompressSync,
  deflate: deflateSync,
};

/**
 * Bundles the workers into one file each. Vite would serve each of a hundred modules to each of hundreds of workers.
 * @returns the folder, relative to the root
 */
async function bundleWorkers(project: string): Promise<string> {
  const folder = `node_modules/.cache/test-workers/${project}-${process.pid}`;
  await build({
    absWorkingDir: root,
    entryPoints: ['src/browser-worker.ts', 'test/browser/opfs-worker.ts', 'test/browser/suite-worker.ts'],
    entryNames: '[name]',
    outdir: folder,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    logLevel: 'error',
  });
  return folder;
}

/**
 * Behaviours of the server:
 *
 * - `/image`: correct answers
 * - `/slow`: each answer after 300 ms
 * - `/stuck`: answers only to requests from the first byte on, and up to the last one
 * - `/no-cors`: no CORS headers
 * - `/hidden`: CORS without exposed headers
 * - `/credentials`: requires a header
 * - `/compressed/CODING`: compressed ranges; `?whole`: the compressed image; `?whole-hidden`: without exposed headers
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const image = imageBytes();
  const server = createServer(async (request, response) => {
    const path = request.url ?? '';
    const [, first = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
    const start = Number(first);
    const end = Math.min(IMAGE_BYTES, last === '' ? IMAGE_BYTES : Number(last) + 1);
    if (path.startsWith('/stuck') && start > 0 && end < IMAGE_BYTES) return;
    if (path.startsWith('/slow')) await new Promise((resolve) => setTimeout(resolve, 300));
    if (path !== '/no-cors') {
      response.setHeader('access-control-allow-origin', '*');
      if (!/hidden/.test(path)) response.setHeader('access-control-expose-headers', 'content-range, etag');
    }
    if (request.method === 'OPTIONS') {
      response.setHeader('access-control-allow-headers', 'authorization, x-key');
      response.writeHead(204).end();
      return;
    }
    if (path === '/credentials' && request.headers['x-key'] !== 'secret') {
      response.writeHead(403).end();
      return;
    }
    const coding = /^\/compressed\/(\w+)/.exec(path)?.[1] ?? '';
    const compress = COMPRESSIONS[coding];
    if (compress !== undefined) response.setHeader('content-encoding', coding);
    if (path.includes('?whole')) {
      response.end(compress?.(image));
      return;
    }
    const body = image.subarray(start, end);
    // Brotli takes seconds for a whole image, which a HEAD without a range asks about.
    const sent = (request.method !== 'HEAD' && compress?.(body)) || body;
    response.writeHead(206, {
      etag: '"1"',
      'content-range': `bytes ${start}-${end - 1}/${IMAGE_BYTES}`,
      'content-length': sent.length,
    });
    response.end(request.method === 'HEAD' ? undefined : sent);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const workers = await bundleWorkers(project.name);
  project.provide('workersPath', `/${workers}`);
  project.provide('serverUrl', `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return () =>
    new Promise((resolve) => {
      rmSync(join(root, workers), { recursive: true, force: true });
      server.closeAllConnections();
      server.close(() => resolve());
    });
}
