import type { DeviceStatus } from '../device/types.ts';

/** Returns the bytes of all synced blocks. The last block may be short. */
export function syncedBytes({
  size,
  blockSize,
  totalBlocks,
  syncedBlocks,
}: Pick<DeviceStatus, 'size' | 'blockSize' | 'totalBlocks' | 'syncedBlocks'>): number {
  return syncedBlocks === totalBlocks ? size : Math.min(size, syncedBlocks * blockSize);
}
