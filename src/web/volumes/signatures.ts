/** Recognizes formats that cannot be browsed here, by their signatures. */

import type { Bytes } from './bytes.ts';

const SIGNATURES: readonly { readonly kind: string; readonly at: number; readonly mark: string }[] = [
  { kind: 'NTFS', at: 3, mark: 'NTFS    ' },
  { kind: 'XFS', at: 0, mark: 'XFSB' },
  { kind: 'SquashFS', at: 0, mark: 'hsqs' },
  { kind: 'EROFS', at: 1024, mark: '\u00e2\u00e1\u00f5\u00e0' },
  { kind: 'LUKS', at: 0, mark: 'LUKS\u00ba\u00be' },
  { kind: 'Linux LVM', at: 512, mark: 'LABELONE' },
  { kind: 'Linux swap', at: 4086, mark: 'SWAPSPACE2' },
  { kind: 'Btrfs', at: 65_600, mark: '_BHRfS_M' },
  { kind: 'ISO 9660', at: 32_769, mark: 'CD001' },
  { kind: 'F2FS', at: 1024, mark: '\u0010\u0020\u00f5\u00f2' },
  { kind: 'APFS', at: 32, mark: 'NXSB' },
  { kind: 'HFS+', at: 1024, mark: 'H+' },
  { kind: 'qcow2', at: 0, mark: 'QFI\u00fb' },
  { kind: 'gzip', at: 0, mark: '\u001f\u008b' },
  { kind: 'xz', at: 0, mark: '\u00fd7zXZ' },
  { kind: 'zstd', at: 0, mark: '\u0028\u00b5\u002f\u00fd' },
];

/** Returns the name of the format that begins here, or `undefined` if it is unknown. */
export async function recognize(bytes: Bytes, signal?: AbortSignal): Promise<string | undefined> {
  for (const { kind, at, mark } of SIGNATURES) {
    if (at + mark.length > bytes.size) continue;
    const found = await bytes.read(at, mark.length, signal);
    if (found.every((byte, index) => byte === mark.charCodeAt(index))) return kind;
  }
  return undefined;
}
