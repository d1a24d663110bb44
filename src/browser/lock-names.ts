/**
 * Names of Web Locks and channels. The browser releases a lock when its worker or page ends for any reason, so that
 * locks show what is alive:
 *
 * - `…#device`: held by the worker that owns the device. The workers of other tabs wait for it; the next holder is the
 *   next owner.
 * - `…#worker:ID`: held by each worker from its start. It is free when the worker has ended.
 */

/** Returns the name of a target within this origin. */
export function keyOf({ directory, target }: { directory: string; target: string }): string {
  return `copyondemand:${[...directory.split('/').filter((part) => part !== ''), target].join('/')}`;
}

export const deviceLock = (key: string): string => `${key}#device`;
export const workerLock = (key: string, workerId: string): string => `${key}#worker:${workerId}`;
export const guestChannel = (key: string, workerId: string): string => `${key}#guest:${workerId}`;

/** Takes the lock `name` until the page or worker ends. Resolves when it is held. */
export function hold(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const held = (): Promise<never> => {
      resolve();
      return new Promise(() => undefined);
    };
    navigator.locks.request(name, held).catch(reject);
  });
}

/** Resolves when the lock `name` is free. Rejects if `signal` is aborted first. */
export function released(name: string, signal: AbortSignal): Promise<void> {
  return navigator.locks.request(name, { mode: 'shared', signal }, async () => undefined);
}
