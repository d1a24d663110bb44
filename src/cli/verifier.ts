/** `--manifest` and `--seed`: sources that are compared with a manifest, and what an older image has of them. */

import type { Seed } from '../sources/seeded.ts';
import type { Source } from '../sources/source.ts';
import { UsageError } from './failure.ts';
import { openImage } from './image.ts';
import { readManifestFile } from './manifest.ts';
import { refuseSameFile } from './same-file.ts';
import type { SourceUri } from './source-uri.ts';
import { formatBytes } from './units.ts';

interface VerifierParts {
  readonly uri: SourceUri | undefined;
  readonly target: string;
  readonly flags: {
    readonly manifest?: string;
    readonly manifestRoot?: string;
    readonly seed?: string;
    readonly metadata?: string;
    readonly json?: boolean;
    readonly quiet?: boolean;
  };
  readonly signal: AbortSignal;
}

/**
 * Returns a function that has an image compared with the manifest that the options name. A seed is hashed when an image
 * comes, so that a copy that exists does not wait for it.
 * @throws {@link UsageError}; the errors of the manifest and of the seed.
 */
export async function verifier({
  uri,
  target,
  flags,
  signal,
}: VerifierParts): Promise<(image: Source) => Promise<Source>> {
  const { manifest: path, manifestRoot: root, seed: seedPath } = flags;
  if (path === undefined) {
    if (root !== undefined) throw new UsageError('--manifest-root needs --manifest');
    if (seedPath !== undefined) throw new UsageError('--seed needs --manifest, which tells what has not changed');
    return async (image) => image;
  }
  if (uri === undefined) throw new UsageError('--manifest needs SOURCE: a copy without its source reads none of it');
  const [{ createManifest }, { verifiedSource }] = await Promise.all([
    import('../sources/manifest.ts'),
    import('../sources/verified.ts'),
  ]);
  const manifest = await readManifestFile(path, root === undefined ? {} : { root });
  if (seedPath === undefined) return async (image) => verifiedSource(image, manifest);
  await refuseSameFile(seedPath, target, flags.metadata);
  const old = await openImage({ kind: 'file', path: seedPath }, {}, signal);
  let hashing: Promise<Seed> | undefined;
  const hash = async (): Promise<Seed> => {
    if (!flags.json && !flags.quiet)
      process.stderr.write(`${seedPath}: hashes ${formatBytes(old.size)}, to take from it what has not changed\n`);
    return { source: old, manifest: await createManifest(old, { extentBytes: manifest.extentBytes, signal }) };
  };
  return async (image) => {
    // Compares the sizes before the seed is hashed, which takes long.
    verifiedSource(image, manifest);
    hashing ??= hash();
    const seed = await hashing.catch((error: unknown) => {
      hashing = undefined;
      throw error;
    });
    return verifiedSource(image, manifest, { seed });
  };
}
