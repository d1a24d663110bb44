/** Browser storage: how much there is, and a request to keep the data. For pages and workers. */

import { CodError } from '../errors.ts';
import { privateRoot } from './opfs.ts';

/** The browser's figures for the origin's storage. */
export interface StorageEstimate {
  /** Bytes that all data of the origin take. A sparse file counts with its full size. */
  readonly usageBytes: number;
  /** The most bytes that the origin may take. A rounded figure that does not tell how full the disk is. */
  readonly quotaBytes: number;
  /** Whether the browser keeps the data when the disk is full. */
  readonly persisted: boolean;
}

/**
 * Returns how much storage the origin uses and may use. A figure is 0 where the browser does not tell it.
 *
 * @throws {@link CodError} COD_UNSUPPORTED when the browser gives no storage, or no estimate.
 * @example
 * ```ts
 * import { estimateStorage } from 'copyondemand/browser';
 *
 * const { usageBytes, quotaBytes } = await estimateStorage();
 * if (quotaBytes - usageBytes < 2 ** 30) console.warn('an image of 1 GiB may not fit');
 * ```
 */
export async function estimateStorage(): Promise<StorageEstimate> {
  await privateRoot();
  if (navigator.storage.estimate === undefined)
    throw new CodError('COD_UNSUPPORTED', 'this browser does not tell how much storage there is: use a newer one');
  const { usage = 0, quota = 0 } = await navigator.storage.estimate();
  return { usageBytes: usage, quotaBytes: quota, persisted: (await navigator.storage.persisted?.()) ?? false };
}

/**
 * Asks the browser to keep the origin's data when the disk is full. Resolves to whether the browser will. Never
 * rejects. Only a page can ask; in a worker it resolves to the present answer.
 *
 * Firefox asks the user: the promise is pending until the user answers, and consent also raises the quota.
 *
 * @example
 * ```ts
 * import { persistStorage } from 'copyondemand/browser';
 *
 * if (!(await persistStorage())) console.warn('the browser may delete the copy when the disk is full');
 * ```
 */
export async function persistStorage(): Promise<boolean> {
  try {
    return ((await navigator.storage.persisted?.()) || (await navigator.storage.persist?.())) ?? false;
  } catch {
    return false;
  }
}
