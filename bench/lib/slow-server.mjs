/**
 * `node bench/lib/slow-server.mjs FILE LATENCY_MS`: serves a file over HTTP, with a delay before each response. Prints
 * its port. A separate process, so that it does not share a CPU core with the benchmark.
 *
 * `/counts` answers with the requests so far and the bytes of their bodies, as JSON.
 */

import { openSync, readSync, statSync } from 'node:fs';
import { createServer } from 'node:http';

const [file, latency] = process.argv.slice(2);
const latencyMs = Number(latency);
const { size } = statSync(file);
const fd = openSync(file, 'r');
const counts = { requests: 0, bytes: 0 };
const server = createServer((request, response) => {
  if (request.url === '/counts') return response.end(JSON.stringify(counts));
  counts.requests++;
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const start = match ? Number(match[1]) : 0;
  const end = match?.[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  const answer = () => {
    response.writeHead(match ? 206 : 200, {
      // Pages of other origins may read the file.
      'access-control-allow-origin': '*',
      'access-control-expose-headers': 'content-range, etag',
      'accept-ranges': 'bytes',
      etag: '"bench"',
      'content-length': end - start + 1,
      ...(match ? { 'content-range': `bytes ${start}-${end}/${size}` } : {}),
    });
    if (request.method === 'HEAD') return response.end();
    let at = start;
    const step = () => {
      if (response.destroyed) return;
      if (at > end) return response.end();
      const piece = Buffer.allocUnsafe(Math.min(262_144, end - at + 1));
      readSync(fd, piece, 0, piece.length, at);
      at += piece.length;
      counts.bytes += piece.length;
      if (response.write(piece)) setImmediate(step);
      else response.once('drain', step);
    };
    step();
  };
  if (latencyMs === 0) answer();
  else setTimeout(answer, latencyMs);
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`));
