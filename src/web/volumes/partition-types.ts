/** Names of partition types. */

const MBR_TYPES: Readonly<Record<number, string>> = {
  1: 'FAT12',
  4: 'FAT16',
  6: 'FAT16',
  7: 'NTFS or exFAT',
  11: 'FAT32',
  12: 'FAT32',
  14: 'FAT16',
  23: 'hidden NTFS',
  27: 'hidden FAT32',
  39: 'Windows recovery',
  130: 'Linux swap',
  131: 'Linux',
  142: 'Linux LVM',
  165: 'FreeBSD',
  166: 'OpenBSD',
  169: 'NetBSD',
  175: 'Apple HFS',
  238: 'GPT',
  239: 'EFI system',
  253: 'Linux RAID',
};

const GPT_TYPES: Readonly<Record<string, string>> = {
  'c12a7328-f81f-11d2-ba4b-00a0c93ec93b': 'EFI system',
  '21686148-6449-6e6f-744e-656564454649': 'BIOS boot',
  '0fc63daf-8483-4772-8e79-3d69d8477de4': 'Linux',
  '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f': 'Linux swap',
  'e6d6d379-f507-44c2-a23c-238f2a3df928': 'Linux LVM',
  'a19d880f-05fc-4d3b-a006-743f0f84911e': 'Linux RAID',
  '933ac7e1-2eb4-4f13-b844-0e14e2aef915': 'Linux home',
  'bc13c2ff-59e6-4262-a352-b275fd6f7172': 'Linux /boot',
  '4f68bce3-e8cd-4db1-96e7-fbcaf984b709': 'Linux root (x86-64)',
  'b921b045-1df0-41c3-af44-4c6f280d3fae': 'Linux root (ARM64)',
  'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7': 'Windows data',
  'e3c9e316-0b5c-4db8-817d-f92df00215ae': 'Windows reserved',
  'de94bba4-06d1-4d40-a16a-bfd50179d6ac': 'Windows recovery',
  '516e7cb4-6ecf-11d6-8ff8-00022d09712b': 'FreeBSD',
  '48465300-0000-11aa-aa11-00306543ecac': 'Apple HFS+',
  '7c3457ef-0000-11aa-aa11-00306543ecac': 'Apple APFS',
};

export function mbrTypeName(type: number): string {
  return MBR_TYPES[type] ?? `type 0x${type.toString(16).padStart(2, '0')}`;
}

/** @param type a GUID in lower case */
export function gptTypeName(type: string): string {
  return GPT_TYPES[type] ?? `type ${type}`;
}
