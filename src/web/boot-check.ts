/**
 * Finds out how a PC with a BIOS starts from a disk, and whether anything on the disk starts.
 *
 * - The size of a floppy makes a floppy of the disk, and an ISO 9660 volume makes a CD of it. Else it is a hard disk.
 * - A floppy and a hard disk start from code in their first sector, whose last bytes are 0x55 0xAA.
 * - A CD starts from its El Torito boot catalogue.
 *
 * A disk without a problem may still not start: only its code can tell.
 */

import type { Bytes } from './volumes/bytes.ts';
import { readPartitions } from './volumes/partitions.ts';

/** The drives of the PC, by v86's names. */
export type Drive = 'hda' | 'fda' | 'cdrom';

export interface BootCheck {
  readonly drive: Drive;
  /** Why nothing on the disk starts. */
  readonly problem: string | undefined;
}

const KIB = 1024;
const FLOPPY_SIZES: readonly number[] = [160, 180, 320, 360, 720, 1200, 1440, 1680, 2880].map((size) => size * KIB);
const SECTOR = 512;
/** The partition table begins here, behind the code. */
const CODE_END = 440;
/** CDs have sectors of 2048 bytes. The volume descriptors begin at sector 16; El Torito's is the second. */
const CD_SECTOR = 2048;
const DESCRIPTORS_AT = 16 * CD_SECTOR;
const EL_TORITO_AT = 17 * CD_SECTOR;
const PLATFORM_X86 = 0;
const PLATFORM_EFI = 0xef;
const BOOTABLE = 0x88;

export async function checkBoot(disk: Bytes, signal?: AbortSignal): Promise<BootCheck> {
  if (FLOPPY_SIZES.includes(disk.size)) return { drive: 'fda', problem: await checkSector(disk, signal) };
  const problem = await checkSector(disk, signal);
  if (!(await hasText(disk, DESCRIPTORS_AT + 1, 'CD001', signal))) return { drive: 'hda', problem };
  const ofCd = await checkCd(disk, signal);
  // The image of a CD may have a boot sector for memory sticks as well.
  return ofCd !== undefined && problem === undefined
    ? { drive: 'hda', problem: undefined }
    : { drive: 'cdrom', problem: ofCd };
}

async function checkSector(disk: Bytes, signal?: AbortSignal): Promise<string | undefined> {
  if (disk.size < SECTOR) return 'The disk is smaller than one sector.';
  const sector = await disk.read(0, SECTOR, signal);
  const isSigned = sector[510] === 0x55 && sector[511] === 0xaa;
  const hasCode = sector.subarray(0, CODE_END).some((byte) => byte !== 0);
  if (isSigned && hasCode) {
    // The text of the sector that mkfs.fat writes.
    return textOf(sector).includes('This is not a bootable disk')
      ? 'The first sector only says that the disk is not bootable.'
      : undefined;
  }
  if (await isForEfi(disk, signal)) return 'The disk starts by EFI only, and this PC has a BIOS.';
  return isSigned ? 'The first sector has no boot code.' : 'The first sector has no boot signature (0x55 0xAA).';
}

async function isForEfi(disk: Bytes, signal?: AbortSignal): Promise<boolean> {
  const table = await readPartitions(disk, { isVolume: false }, signal).catch(() => undefined);
  return table?.partitions.some(({ type }) => /\bEFI\b/.test(type)) ?? false;
}

async function checkCd(disk: Bytes, signal?: AbortSignal): Promise<string | undefined> {
  const none = 'The CD has no El Torito boot catalogue.';
  if (!(await hasText(disk, EL_TORITO_AT, '\0CD001\u0001EL TORITO SPECIFICATION', signal))) return none;
  const pointer = await disk.read(EL_TORITO_AT + 0x47, 4, signal);
  const catalogueAt = new DataView(pointer.buffer, pointer.byteOffset).getUint32(0, true) * CD_SECTOR;
  if (catalogueAt + CD_SECTOR > disk.size) return 'The boot catalogue of the CD is beyond its end.';
  const platforms = bootPlatforms(await disk.read(catalogueAt, CD_SECTOR, signal));
  if (platforms.includes(PLATFORM_X86)) return undefined;
  return platforms.includes(PLATFORM_EFI)
    ? 'The CD starts by EFI only, and this PC has a BIOS.'
    : 'The boot catalogue of the CD has no entry for a PC.';
}

/** Returns the platforms of the bootable entries in an El Torito catalogue: a validation entry, then sections. */
function bootPlatforms(catalogue: Uint8Array): number[] {
  const entry = (index: number): Uint8Array => catalogue.subarray(index * 32, index * 32 + 32);
  if (entry(0)[0] !== 1) return [];
  let platform = entry(0)[1]!;
  const platforms: number[] = [];
  for (let index = 1; index < CD_SECTOR / 32; index++) {
    const kind = entry(index)[0]!;
    if (kind === 0x90 || kind === 0x91) platform = entry(index)[1]!;
    else if (kind === BOOTABLE) platforms.push(platform);
  }
  return platforms;
}

async function hasText(disk: Bytes, offset: number, text: string, signal?: AbortSignal): Promise<boolean> {
  return offset + text.length <= disk.size && textOf(await disk.read(offset, text.length, signal)) === text;
}

function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
