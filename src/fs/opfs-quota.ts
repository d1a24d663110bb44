/** Room in a browser: what there is, and asking that it is not taken back. For a page and for a worker alike. */

/** What the browser says of the origin's storage. */
export interface StorageEstimate {
  /** Bytes that all data of the origin take, a sparse file with its whole size. */
  readonly usageBytes: number;
  /** Bytes that the origin may come to. A rounded figure: it says nothing of how full the disk is. */
  readonly quotaBytes: number;
  /** Whether the browser keeps the data when the disk runs full. */
  readonly persisted: boolean;
}

/** What there is; ask it before a copy is begun. Zeros where the browser does not say. */
export async function estimateStorage(): Promise<StorageEstimate> {
  const { usage = 0, quota = 0 } = (await navigator.storage.estimate?.()) ?? {};
  return { usageBytes: usage, quotaBytes: quota, persisted: (await navigator.storage.persisted?.()) ?? false };
}

/**
 * Asks the browser to keep the origin's data when the disk runs full, and resolves to whether it will. Only a page can ask. Firefox asks the
 * user, gives no answer as long as the user gives none, and more room than before with consent. It never rejects.
 */
export async function persistStorage(): Promise<boolean> {
  try {
    return ((await navigator.storage.persisted?.()) || (await navigator.storage.persist?.())) ?? false;
  } catch {
    return false;
  }
}
