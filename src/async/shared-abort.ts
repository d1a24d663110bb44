/** An abort signal that many waiters share. */

// Not imported, since this module is part of pages too.
const { process } = globalThis as {
  process?: {
    getBuiltinModule?(name: string): { setMaxListeners(count: number, signal: AbortSignal): void } | undefined;
  };
};

/** Returns a controller whose signal may have any number of listeners. Node warns of a leak from the eleventh on. */
export function sharedAbort(): AbortController {
  const controller = new AbortController();
  process?.getBuiltinModule?.('events')?.setMaxListeners(0, controller.signal);
  return controller;
}
