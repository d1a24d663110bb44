/** A server of the built package whose answers have chosen headers, and may be wrong. */

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Site } from './site.ts';

const dist = fileURLToPath(new URL('../../dist/', import.meta.url));
const WORKER = 'browser-worker.js';

/**
 * - `/?HEADERS`: an empty page. HEADERS is a query of headers, such as `?Name=value`.
 * - `/frame`: a page with that one in a sandboxed frame
 * - `/dist/FILE`: the package. CORS allows all origins.
 * - `/FOLDER/FILE`: the package; the worker's script is wrong in the way that is the name of FOLDER
 */
export async function startStrictSite(): Promise<Site> {
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
    const [, folder = '', name = ''] = pathname.split('/');
    const html = (text: string): unknown => {
      response.setHeader('content-type', 'text/html');
      return response.end(`<!doctype html><title>page</title>${text}`);
    };
    if (name === '') {
      for (const [header, value] of searchParams) response.setHeader(header, value);
      return html(folder === 'frame' ? '<iframe sandbox="allow-scripts" src="/"></iframe>' : '');
    }
    if (name === WORKER) {
      if (folder === 'missing') return response.writeHead(404).end();
      if (folder === 'html') return html('<p>Any path leads here.</p>');
      if (folder === 'policy') response.setHeader('content-security-policy', "script-src 'self'");
      if (folder === 'broken') return response.setHeader('content-type', 'text/javascript').end('%');
    }
    if (name !== WORKER || folder !== 'closed') response.setHeader('access-control-allow-origin', '*');
    const body = await readFile(join(dist, name)).catch(() => undefined);
    if (body === undefined) return response.writeHead(404).end();
    return response.setHeader('content-type', 'text/javascript').end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
