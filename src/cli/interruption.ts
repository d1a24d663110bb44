/** SIGINT and SIGTERM: the first signal asks a command to stop in order, the second one ends the process. */

import { EXIT, Interrupted } from './failure.ts';
import { logEvent } from './log/told.ts';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** The first signal, as an `AbortSignal`. */
export interface Interruption {
  /** Aborted by the first signal. The reason is an {@link Interrupted}. */
  readonly signal: AbortSignal;
  /** Restores the default handling of signals. */
  stop(): void;
}

/** Handles SIGINT and SIGTERM until `stop` is called. */
export function listenForInterruption(): Interruption {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    logEvent('notice', 'signal', 'copyondemand', `${name}: ends in order; a second signal ends it at once`);
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
