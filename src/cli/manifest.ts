/** `copyondemand manifest`: writes a file with the digests of an image's extents. */

import { open, rename, rm } from 'node:fs/promises';
import { CodError, isCodError } from '../errors.ts';
import { ioError } from '../platform/errno.ts';
import type { Manifest, ReadManifestOptions } from '../sources/manifest.ts';
import { emitError, UsageError } from './failure.ts';
import { checkSourceFlags, type HttpFlags } from './http-options.ts';
import { type ImageFlags, openImage } from './image.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { progressFor } from './progress.ts';
import { parseSourceUri } from './source-uri.ts';
import { formatBytes } from './units.ts';

/** Parsed options of the command. */
export interface ManifestFlags extends HttpFlags, ImageFlags {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

const TICK_MS = 200;
const MAGIC = 'COD MAN\0';

/**
 * Writes the manifest of the image in SOURCE to the file at `path`, as a whole or not at all, and prints its root.
 * @throws {@link CodError} COD_EXISTS if another file than a manifest is there; the errors of the source.
 */
export async function manifest(sourceText: string, path: string, flags: ManifestFlags): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const progress = progressFor(process.stderr, { quiet: flags.quiet === true || flags.json === true });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  try {
    const uri = parseSourceUri(sourceText);
    if (path === '') throw new UsageError('FILE is empty: give the path of the manifest');
    checkSourceFlags(uri, flags);
    await refuseOtherFile(path);
    const [image, { createManifest }] = await Promise.all([
      openImage(uri, flags, signal),
      import('../sources/manifest.ts'),
    ]);
    try {
      const { size } = image;
      await progress.begin({ label: 'hashing', total: size, initial: 0 });
      let toldAt = performance.now();
      const onProgress = (bytes: number): void => {
        const now = performance.now();
        if (now - toldAt < TICK_MS) return;
        toldAt = now;
        progress.update(bytes);
        emit('progress', { phase: 'hashing', bytes, size });
      };
      const { root, extentBytes, bytes } = await createManifest(image, { signal, onProgress });
      await replaceFile(path, bytes);
      progress.end();
      emit('done', { file: path, root, size, extentBytes });
      if (!flags.json) process.stdout.write(`${root}\n`);
      if (!flags.quiet && !flags.json) process.stderr.write(`${path}: manifest of ${formatBytes(size)}\n`);
    } finally {
      await image.close();
    }
  } catch (error) {
    progress.end();
    emitError(emit, error);
    throw error;
  } finally {
    interruption.stop();
  }
}

/**
 * Reads the manifest in the file at `path`.
 * @throws the errors of `readManifest`, with the path in their message; COD_NOT_FOUND, COD_SOURCE_IO
 */
export async function readManifestFile(path: string, options: ReadManifestOptions): Promise<Manifest> {
  const [{ fileSource }, { readManifest }] = await Promise.all([
    import('../sources/file.ts'),
    import('../sources/manifest.ts'),
  ]);
  const file = await fileSource(path);
  try {
    return await readManifest(file, options);
  } catch (error) {
    if (!isCodError(error) || error.message.includes(path)) throw error;
    const { code, message, details, cause } = error;
    throw new CodError(code, `${path}: ${message}`, { details: { ...details, path }, cause });
  } finally {
    await file.close();
  }
}

/** @throws {@link CodError} COD_EXISTS if the file at `path` is there and is no manifest. */
async function refuseOtherFile(path: string): Promise<void> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw ioError(`open ${path}`, error, { path });
  });
  if (file === undefined) return;
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(MAGIC.length), 0, MAGIC.length, 0);
    if (bytesRead === MAGIC.length && buffer.toString('latin1') === MAGIC) return;
  } catch (cause) {
    throw ioError(`read ${path}`, cause, { path });
  } finally {
    await file.close();
  }
  throw new CodError('COD_EXISTS', `${path} exists and is no manifest: give another FILE`, { details: { path } });
}

/** Writes a file under a temporary name, and gives it its name when its bytes are durable. */
async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = await open(temporary, 'wx');
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    // A file that was there before is not ours.
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') await rm(temporary, { force: true }).catch(() => undefined);
    throw ioError(`write ${path}`, cause, { path });
  }
}
