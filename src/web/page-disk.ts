/** The part of a device that the page uses. */

import type { BrowserDevice, DeviceStatus } from '../browser.ts';

export interface DiskStatus
  extends Pick<DeviceStatus, 'blockSize' | 'totalBlocks' | 'syncedBlocks' | 'dirtyBlocks' | 'sourceBytes'> {
  readonly writes: Pick<DeviceStatus['writes'], 'count'>;
}

type UsedMembers =
  | 'size'
  | 'blockSize'
  | 'read'
  | 'write'
  | 'flush'
  | 'countSynced'
  | 'countDirty'
  | 'events'
  | 'hydrated'
  | 'setRate'
  | 'close'
  | 'role';

/** A copy in this browser is such a disk. `MemoryDisk` is one of which nothing is kept. */
export interface PageDisk extends Pick<BrowserDevice, UsedMembers> {
  onRoleChange: BrowserDevice['onRoleChange'];
  status(): DiskStatus;
  refreshStatus(): Promise<DiskStatus>;
}
