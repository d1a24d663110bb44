/**
 * Names of Web Locks and channels. A lock goes with the worker or page that holds it, however that ends, so that locks say who lives:
 *
 * - `…#device`: held by the worker that has the device; the workers of other tabs wait for it and take over when it comes to them.
 * - `…#worker:ID`: held by each worker from its start; whoever gets it knows that the worker is gone.
 * - `…#boot:ID`: held by each page and worker that has had part in the device. As long as anybody holds it, the machine has been running, so that
 *   what was written by now is there, synced or not.
 */

/** Names one target of this origin. */
export function keyOf({ directory, target }: { directory: string; target: string }): string {
  return `copyondemand:${[...directory.split('/').filter((part) => part !== ''), target].join('/')}`;
}

export const deviceLock = (key: string): string => `${key}#device`;
export const workerLock = (key: string, workerId: string): string => `${key}#worker:${workerId}`;
export const bootLock = (key: string, bootId: string): string => `${key}#boot:${bootId}`;
export const guestChannel = (key: string, workerId: string): string => `${key}#guest:${workerId}`;

/** Holds `name` until `signal` is aborted, or for life; resolves when it is held. */
export function hold(name: string, options: { mode?: LockMode; signal?: AbortSignal } = {}): Promise<void> {
  const { mode = 'exclusive', signal } = options;
  return new Promise((resolve, reject) => {
    const held = (): Promise<void> => {
      resolve();
      return new Promise((release) => signal?.addEventListener('abort', () => release(), { once: true }));
    };
    navigator.locks.request(name, { mode }, held).catch(reject);
  });
}

/** Resolves when nobody holds `name` any more. Rejects if `signal` is aborted first. */
export function released(name: string, signal: AbortSignal): Promise<void> {
  return navigator.locks.request(name, { mode: 'shared', signal }, async () => undefined);
}

/**
 * Holds the present boot, which whoever had the device before has named if anybody is left; a new one otherwise. Resolves to its name. For whoever
 * holds the device's lock, so that there is but one.
 */
export async function holdBoot(key: string): Promise<string> {
  const prefix = bootLock(key, '');
  const { held = [] } = await navigator.locks.query();
  const known = held.find(({ name }) => name?.startsWith(prefix))?.name?.slice(prefix.length);
  const bootId = known ?? crypto.randomUUID();
  await hold(bootLock(key, bootId), { mode: 'shared' });
  return bootId;
}
