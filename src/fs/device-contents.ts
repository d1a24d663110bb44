/** What a block device holds before a copy replaces it. */

import type { File, Image } from './file-system.ts';

interface Signature {
  readonly at: number;
  readonly bytes: string;
  readonly name: string;
}

/** Signatures of what people keep on block devices, as of util-linux's libblkid. */
const SIGNATURES: readonly Signature[] = [
  { at: 512, bytes: 'EFI PART', name: 'a partition table' },
  { at: 510, bytes: '\x55\xaa', name: 'a partition table or a boot sector' },
  { at: 1080, bytes: '\x53\xef', name: 'an ext file system' },
  { at: 0, bytes: 'XFSB', name: 'an XFS file system' },
  { at: 65_600, bytes: '_BHRfS_M', name: 'a btrfs file system' },
  { at: 1024, bytes: '\x10\x20\xf5\xf2', name: 'an F2FS file system' },
  { at: 32_769, bytes: 'CD001', name: 'an ISO 9660 file system' },
  { at: 0, bytes: 'hsqs', name: 'a squashfs file system' },
  { at: 0, bytes: 'LUKS\xba\xbe', name: 'an encrypted volume (LUKS)' },
  { at: 512, bytes: 'LABELONE', name: 'an LVM volume' },
  { at: 4096, bytes: '\xfc\x4e\x2b\xa9', name: 'a member of a RAID array' },
  { at: 4086, bytes: 'SWAPSPACE2', name: 'swap space' },
];

/** Bytes at the beginning that hold all signatures. */
const BEGINNING_BYTES = 2 ** 17;

/** So many samples of a device are compared with the image, each of so many bytes. */
const SAMPLES = 8;
const SAMPLE_BYTES = 4096;

/** As {@link File.deviceContents}: by a signature, or since the device reads as the image in some places. */
export async function contentsOfDevice(file: File, image: Image): Promise<string | undefined> {
  return (await bySignature(file)) ?? ((await holdsSamples(file, image)) ? 'this image' : undefined);
}

async function bySignature(file: File): Promise<string | undefined> {
  const beginning = new Uint8Array(Math.min(await file.size(), BEGINNING_BYTES));
  await file.read(beginning, 0);
  return SIGNATURES.find(({ at, bytes }) => [...bytes].every((char, i) => beginning[at + i] === char.charCodeAt(0)))
    ?.name;
}

/** Whether a sample that is not zero is equal on the device and in its image. */
async function holdsSamples(file: File, image: Image): Promise<boolean> {
  const length = Math.min(SAMPLE_BYTES, image.size);
  const samples = Array.from({ length: SAMPLES }, async (_, i) => {
    const offset = Math.floor(((image.size - length) / SAMPLES) * i);
    const [ours, theirs] = [new Uint8Array(length), new Uint8Array(length)];
    await Promise.all([file.read(ours, offset), image.read(theirs, offset)]);
    return ours.some((byte) => byte !== 0) && ours.every((byte, at) => byte === theirs[at]);
  });
  return (await Promise.all(samples)).includes(true);
}
