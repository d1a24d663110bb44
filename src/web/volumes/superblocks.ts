/** Recognizes formats whose signature alone says too little: one that is short, or that is in one of several places. */

import { type Bytes, text, u64, viewOf } from './bytes.ts';
import type { Recognized } from './signatures.ts';

/** Apple's HFS and HFS+. The volume header of both is at 1024; HFS+ may be wrapped into an HFS that is almost empty. */
export async function hfs(bytes: Bytes, signal?: AbortSignal): Promise<Recognized | undefined> {
  if (bytes.size < 2048) return undefined;
  const header = await bytes.read(1024, 512, signal);
  const view = viewOf(header);
  const [mark, version] = [view.getUint16(0), view.getUint16(2)];
  // 4 is the version of "H+", 5 that of "HX".
  if ((mark === 0x482b && version === 4) || (mark === 0x4858 && version === 5)) return { kind: 'HFS+', label: '' };
  const allocationBytes = view.getUint32(20);
  const nameBytes = header[36]!;
  if (mark !== 0x4244 || allocationBytes === 0 || allocationBytes % 512 !== 0 || nameBytes === 0 || nameBytes > 27)
    return undefined;
  const label = text(header.subarray(37, 37 + nameBytes), 'macintosh');
  return { kind: view.getUint16(124) === 0x482b ? 'HFS+' : 'HFS', label };
}

export async function nilfs(bytes: Bytes, signal?: AbortSignal): Promise<Recognized | undefined> {
  if (bytes.size < 2048) return undefined;
  const header = await bytes.read(1024, 1024, signal);
  const view = viewOf(header);
  const revision = view.getUint32(0, true);
  const length = view.getUint16(8, true);
  if (view.getUint16(6, true) !== 0x3434 || revision !== 2 || length < 200 || length > 1024) return undefined;
  return { kind: 'NILFS2', label: text(header.subarray(168, 248)) };
}

const RAID_MAGIC = 0xa92b4efc;
const SECTOR = 512;

/**
 * A member of a RAID of Linux's md. The superblock is at the beginning (1.1), 4 KiB behind it (1.2), or near the end
 * (1.0 and 0.90).
 */
export async function raid(bytes: Bytes, signal?: AbortSignal): Promise<Recognized | undefined> {
  const { size } = bytes;
  const late = Math.floor((size - 8192) / 4096) * 4096;
  for (const [version, at] of [
    ['1.1', 0],
    ['1.2', 4096],
    ['1.0', late],
  ] as const) {
    if (at < 0 || at + 256 > size) continue;
    const raw = await bytes.read(at, 256, signal);
    const view = viewOf(raw);
    if (view.getUint32(0, true) !== RAID_MAGIC || view.getUint32(4, true) !== 1) continue;
    // A superblock near the end may be that of a partition which ends there. It says where it is itself.
    if (version === '1.0' && u64(view, 144) * SECTOR !== at) continue;
    return { kind: `Linux RAID (md ${version})`, label: text(raw.subarray(32, 64)) };
  }
  const oldest = Math.floor(size / 65_536) * 65_536 - 65_536;
  if (oldest < 0) return undefined;
  const view = viewOf(await bytes.read(oldest, 8, signal));
  const isOldest = [true, false].some(
    (little) => view.getUint32(0, little) === RAID_MAGIC && view.getUint32(4, little) === 0,
  );
  return isOldest ? { kind: 'Linux RAID (md 0.90)', label: '' } : undefined;
}

const ZFS_LABEL_BYTES = 2 ** 18;
const UBERBLOCKS_AT = 2 ** 17;
/** Each pool writes its uberblocks one after another, into slots of 1 KiB to 8 KiB. */
const UBERBLOCK_SLOTS = [0, 1, 2, 4, 8, 16, 32];

/** A member of a ZFS pool. It begins and ends with two labels, each with the pool's name and a ring of uberblocks. */
export async function zfs(bytes: Bytes, signal?: AbortSignal): Promise<Recognized | undefined> {
  if (bytes.size < 4 * ZFS_LABEL_BYTES) return undefined;
  const list = await bytes.read(16_384, 4096, signal);
  // An XDR list in the byte order of x86, version 0, names unique.
  const isList = viewOf(list).getUint32(0) === 0x01010000 && viewOf(list).getUint32(8) === 1;
  for (const slot of isList ? [] : UBERBLOCK_SLOTS) {
    const view = viewOf(await bytes.read(UBERBLOCKS_AT + slot * 1024, 8, signal));
    if ([true, false].some((little) => view.getBigUint64(0, little) === 0xbab10cn)) return { kind: 'ZFS', label: '' };
  }
  return isList ? poolIn(list) : undefined;
}

/** Returns the pool whose list of names and values begins with `list`. It has a version and, in most cases, a name. */
function poolIn(list: Uint8Array): Recognized | undefined {
  const latin = String.fromCharCode(...list);
  if (!latin.includes('\0\0\0\x07version\0')) return undefined;
  // A name of four characters, then the type of a string, one value, its length and the value.
  const mark = '\0\0\0\x04name\0\0\0\x09\0\0\0\x01';
  const at = latin.indexOf(mark) + mark.length;
  if (at < mark.length || at + 4 > list.length) return { kind: 'ZFS', label: '' };
  const length = viewOf(list).getUint32(at);
  return { kind: 'ZFS', label: length > 255 ? '' : text(list.subarray(at + 4, at + 4 + length)) };
}
