/**
 * Names of Web Locks and channels. The browser releases a lock when its worker or page ends for any reason, so that
 * locks show what is alive:
 *
 * - `…#device`: held by the worker that owns the device. The workers of other tabs wait for it; the next holder is the
 *   next owner.
 * - `…#worker:ID`: held by each worker from its start. It is free when the worker has ended.
 * - `…#boot:ID`: held by each page and worker that has used the device. While it is held, the machine has been on since
 *   the boot was named, so that unsynced writes are still there.
 */

/** Returns the name of a target within this origin. */
export function keyOf({ directory, target }: { directory: string; target: string }): string {
  return `copyondemand:${[...directory.split('/').filter((part) => part !== ''), target].join('/')}`;
}

export const deviceLock = (key: string): string => `${key}#device`;
export const workerLock = (key: string, workerId: string): string => `${key}#worker:${workerId}`;
export const bootLock = (key: string, bootId: string): string => `${key}#boot:${bootId}`;
export const guestChannel = (key: string, workerId: string): string => `${key}#guest:${workerId}`;

/** Takes the lock `name` until `signal` is aborted or the page or worker ends. Resolves when it is held. */
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

/** Resolves when the lock `name` is free. Rejects if `signal` is aborted first. */
export function released(name: string, signal: AbortSignal): Promise<void> {
  return navigator.locks.request(name, { mode: 'shared', signal }, async () => undefined);
}

/**
 * Takes the lock of the present boot and resolves to the boot's name: a name that a page or worker still holds, or a
 * new one. The caller must hold the device's lock, so that only one name is in use.
 */
export async function holdBoot(key: string): Promise<string> {
  const prefix = bootLock(key, '');
  const { held = [] } = await navigator.locks.query();
  const known = held.find(({ name }) => name?.startsWith(prefix))?.name?.slice(prefix.length);
  const bootId = known ?? crypto.randomUUID();
  await hold(bootLock(key, bootId), { mode: 'shared' });
  return bootId;
}
