/** SIGINT and SIGTERM: the first one asks a command to stop tidily, the second one ends the process. */

import { EXIT, Interrupted } from './failure.ts';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** Signals, as something to abort with. */
export interface Interruption {
  /** Aborted by the first signal; the reason is an {@link Interrupted}. */
  readonly signal: AbortSignal;
  /** Leaves signals to the system again. */
  stop(): void;
}

/** Takes over SIGINT and SIGTERM until `stop` is called. */
export function listenForInterruption(): Interruption {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    controller.abort(new Interrupted(`interrupted by ${name}`));
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return {
    signal: controller.signal,
    stop: () => {
      for (const name of SIGNALS) process.off(name, onSignal);
    },
  };
}
