/** Browser storage: how much there is, and a request to keep the data. For pages and workers. */

/** The browser's figures for the origin's storage. */
export interface StorageEstimate {
  /** Bytes that all data of the origin take. A sparse file counts with its full size. */
  readonly usageBytes: number;
  /** The most bytes that the origin may take. A rounded figure: it does not tell how full the disk is. */
  readonly quotaBytes: number;
  /** Whether the browser keeps the data when the disk is full. */
  readonly persisted: boolean;
}

/** Returns the figures; call it before a copy begins. They are 0 where the browser does not tell them. */
export async function estimateStorage(): Promise<StorageEstimate> {
  const { usage = 0, quota = 0 } = (await navigator.storage.estimate?.()) ?? {};
  return { usageBytes: usage, quotaBytes: quota, persisted: (await navigator.storage.persisted?.()) ?? false };
}

/**
 * Asks the browser to keep the origin's data when the disk is full, and resolves to whether it will. Only a page can
 * ask. Never rejects.
 *
 * Firefox asks the user: the promise is pending until the user answers, and consent also raises the quota.
 */
export async function persistStorage(): Promise<boolean> {
  try {
    return ((await navigator.storage.persisted?.()) || (await navigator.storage.persist?.())) ?? false;
  } catch {
    return false;
  }
}
