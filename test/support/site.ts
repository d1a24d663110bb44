/**
 * A static server, which can also serve images to pages of any origin, and accept uploads. `/clear-site-data` has the
 * browser remove the data of the site.
 */

import { createReadStream } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { buffer } from 'node:stream/consumers';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
  '.css': 'text/css',
};

export interface Site {
  readonly url: string;
  close(): Promise<void>;
}

export interface SiteOptions {
  /** Folders by URL prefix, such as `'/dist/'`. The longest matching prefix wins. Files are served with ranges. */
  readonly folders: Readonly<Record<string, string>>;
  /** Folder for the files of `PUT /upload/NAME`. */
  readonly uploads?: string;
}

export async function startSite({ folders, uploads }: SiteOptions): Promise<Site> {
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = new URL(request.url ?? '/', 'http://localhost').pathname;
    if (path === '/clear-site-data') {
      response.writeHead(204, { 'clear-site-data': '"storage"' }).end();
      return;
    }
    if (uploads !== undefined && request.method === 'PUT' && path.startsWith('/upload/')) {
      await writeFile(join(uploads, path.slice('/upload/'.length)), await buffer(request));
      response.writeHead(204).end();
      return;
    }
    const prefix = Object.keys(folders)
      .sort((a, b) => b.length - a.length)
      .find((start) => path.startsWith(start));
    const file = prefix === undefined ? undefined : join(folders[prefix]!, path.slice(prefix.length) || 'index.html');
    const stats = file === undefined ? undefined : await stat(file).catch(() => undefined);
    if (file === undefined || !stats?.isFile()) {
      if (path === '/blank') response.setHeader('content-type', 'text/html');
      response.writeHead(path === '/blank' ? 200 : 404).end();
      return;
    }
    response.setHeader('access-control-allow-origin', '*');
    response.setHeader('access-control-expose-headers', 'content-range, etag');
    response.setHeader('content-type', TYPES[extname(file)] ?? 'application/octet-stream');
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    if (range === null) {
      response.writeHead(200).end(await readFile(file));
      return;
    }
    const start = Number(range[1]);
    const end = Math.min(stats.size - 1, range[2] === '' ? stats.size - 1 : Number(range[2]));
    response.writeHead(206, {
      etag: `"${stats.size}-${stats.mtimeMs}"`,
      'content-range': `bytes ${start}-${end}/${stats.size}`,
      'content-length': end - start + 1,
    });
    const stream = createReadStream(file, { start, end, highWaterMark: 2 ** 20 });
    stream.pipe(response);
    response.on('close', () => stream.destroy());
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error as Error));
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
