/** Events for scripts: one JSON object per line, on stdout. */

/** Events of `--json`. The last event is `done` or `error`, and the only one of `remove` and `repair`. */
export type CopyEvent =
  | 'start'
  | 'warning'
  | 'listening'
  | 'metrics'
  | 'rate'
  | 'progress'
  | 'retry'
  | 'recovered'
  | 'source-changed'
  | 'hydrated'
  | 'failed'
  | 'refused'
  | 'ready'
  | 'reloaded'
  | 'reload-failed'
  | 'closed'
  | 'verified'
  | 'changed'
  | 'mismatch'
  | 'done'
  | 'error';

/** Prints an event. */
export type Emit = (event: CopyEvent, fields: Readonly<Record<string, unknown>>) => void;

/** Returns a function that prints events to `stream`, or does nothing unless `enabled`. */
export function jsonLines(stream: NodeJS.WritableStream, options: { enabled: boolean }): Emit {
  if (!options.enabled) return () => {};
  return (event, fields) => {
    stream.write(`${JSON.stringify({ event, ...fields })}\n`);
  };
}
