/** An image in whatever format as the disk that it holds. */

import { formatOf } from './format.ts';
import { type Qcow2SourceOptions, qcow2Source } from './qcow2/source.ts';
import type { Source } from './source.ts';

/** Options of {@link imageSource}. */
export interface ImageSourceOptions extends Qcow2SourceOptions {
  /** How the image is read. Default: as its first and last bytes tell. */
  readonly format?: 'raw' | 'qcow2';
  /** Looks at the first bytes only, for a server without ranges. Default: false. */
  readonly headOnly?: boolean;
}

/**
 * Returns the disk in an image: the disk of a qcow2 image as {@link qcow2Source} does, `source` itself if it is a disk.
 *
 * Other containers, archives and web pages are refused, since a copy of them is no disk: VMDK, VDI, VHD, VHDX, QED,
 * UDIF (dmg), Parallels, gzip, xz, zstd, bzip2, lz4, lzop, lzip, ZIP, 7z, RAR, tar, WIM, Android sparse images, HTML,
 * XML and JSON. The Content-Type of a server counts where the bytes do not tell. Whatever is not known is a disk. Takes
 * two short reads of the source.
 *
 * @throws {@link CodError} COD_UNSUPPORTED when it is such a file; as {@link qcow2Source}; the errors of the source.
 * @example
 * ```ts
 * import { httpSource, imageSource } from 'copyondemand';
 *
 * const source = await imageSource(await httpSource('https://example.org/disk.raw'));
 * const sector = new Uint8Array(512);
 * await source.read(sector, 0);
 * await source.close();
 * ```
 */
export async function imageSource(source: Source, options: ImageSourceOptions = {}): Promise<Source> {
  const format = options.format ?? (await formatOf(source, options));
  return format === 'qcow2' ? qcow2Source(source, options) : source;
}
