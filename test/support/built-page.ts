/** The built page, and images for it on another origin. */

import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RangeServer, startRangeServer } from '../../src/cli/demo/range-server.ts';
import { makeDisk, makeExt, makeFat, makeFolder } from './disk-images.ts';

const PERMISSION = { 'access-control-allow-origin': '*', 'access-control-expose-headers': 'content-range, etag' };

/** Builds the page into `folder`, by default without its sample images. */
export function buildPage(folder: string, { samples }: { samples: boolean } = { samples: false }): void {
  const script = fileURLToPath(new URL('../../scripts/web.mjs', import.meta.url));
  execFileSync(process.execPath, [script, '--out', folder, ...(samples ? [] : ['--no-samples'])], { stdio: 'pipe' });
}

/** Makes `disk.img` in `folder`: 40 MiB with a FAT and an ext4 volume. Its parts stay beside it. */
export function makeSampleDisk(folder: string): string {
  const files = makeFolder(join(folder, 'files'), { links: true });
  makeExt(join(folder, 'ext4'), { kind: 'ext4', folder: files, mebibytes: 20 });
  makeFat(join(folder, 'fat'), { bits: 12, folder: files, mebibytes: 4 });
  const table = 'label: gpt\nstart=1MiB, size=4MiB, type=U, name="boot"\nstart=8MiB, size=20MiB, type=L, name="root"\n';
  const volumes = [
    { at: 1, path: join(folder, 'fat') },
    { at: 8, path: join(folder, 'ext4') },
  ];
  const disk = join(folder, 'disk.img');
  makeDisk(disk, { mebibytes: 40, table, volumes });
  return disk;
}

/** A server whose speed the test decides, so that the copy neither ends too early nor takes long. */
export interface ImageServer extends RangeServer {
  /** Ends the limit of the speed. */
  release(): void;
}

/**
 * Serves an image at `bytesPerSecond` until {@link ImageServer.release}. Each server has a port of its own, so that
 * each is another source.
 */
export async function serveImage(
  path: string,
  options: { size?: number; bytesPerSecond?: number; etag?: () => string; headers?: Record<string, string> } = {},
): Promise<ImageServer> {
  const { size = statSync(path).size, headers = PERMISSION, etag = () => '"one"' } = options;
  let bytesPerSecond: number | undefined = options.bytesPerSecond ?? 2 ** 19;
  const file = openSync(path, 'r');
  const server = await startRangeServer({
    size,
    latencyMs: 10,
    headers,
    get bytesPerSecond() {
      return bytesPerSecond;
    },
    get etag() {
      return etag();
    },
    read: async (into, offset) => {
      readSync(file, into, 0, into.length, offset);
    },
  });
  const { close } = server;
  return Object.assign(server, {
    close: () => close().then(() => closeSync(file)),
    release() {
      bytesPerSecond = undefined;
    },
  });
}
