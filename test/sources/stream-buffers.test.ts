/** A stream in pieces on pages gives its buffers back, however it ends. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { nbdSource, serveNbd } from '../../src/nbd.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { areWholePages, pageBuffer, releasePages } from '../../src/platform/pages.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { HostileServer } from '../support/http-server.ts';

const MIB = 2 ** 20;
const content = Uint8Array.from({ length: 9 * MIB }, (_, at) => (at >> 12) & 0xff);

/** The number of page buffers that are free. */
function freeBuffers(): number {
  const taken: Uint8Array[] = [];
  do taken.push(pageBuffer(1));
  while (taken.at(-1)!.buffer.byteLength > 1);
  taken.forEach(releasePages);
  return taken.length - 1;
}

let folder: string;
let server: HostileServer;
let stop: () => Promise<void>;
let uri: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cod-buffers-'));
  writeFileSync(join(folder, 'disk.raw'), content);
  server = await HostileServer.start(content);
  const source = await fileSource(join(folder, 'disk.raw'));
  const device = await openDevice({ source, fileSystem: nodeFileSystem(folder), target: 'copy', hydrate: false });
  const nbd = await serveNbd(device, { socket: join(folder, 's') });
  uri = nbd.uris[0]!;
  stop = async () => {
    await nbd.close();
    await device.close();
    await source.close();
    await server.stop();
    rmSync(folder, { recursive: true });
  };
});
afterAll(() => stop());

const kinds: [string, () => Promise<InlineSource>][] = [
  ['a file', () => fileSource(join(folder, 'disk.raw'))],
  ['HTTP', () => httpSource(server.url)],
  ['NBD', () => nbdSource(uri)],
];

describe.each(kinds)('a stream of %s', (_, open) => {
  it.each(['at its end', 'when it is left', 'when it is aborted'])('releases its buffers %s', async (how) => {
    const source = await open();
    const before = freeBuffers();
    const aborter = new AbortController();
    const found = new Uint8Array(content.length);
    let at = 0;
    let isOnPages = false;
    const copy = async (): Promise<void> => {
      const options = { signal: aborter.signal, pieceBytes: 2 * MIB };
      for await (const piece of source.stream!(0, content.length, options)) {
        isOnPages ||= areWholePages(piece);
        found.set(piece, at);
        at += piece.length;
        if (at >= 3 * MIB && how === 'when it is left') break;
        if (at >= 3 * MIB && how === 'when it is aborted') aborter.abort(new Error('aborted'));
      }
    };
    const copied = copy();
    if (how === 'when it is aborted') await expect(copied).rejects.toThrow('aborted');
    else await copied;
    expect(Buffer.compare(found.subarray(0, at), content.subarray(0, at))).toBe(0);
    expect(isOnPages).toBe(true);
    expect(freeBuffers()).toBe(before);
    await source.close();
  });
});
