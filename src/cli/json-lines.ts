/** Events for scripts: one JSON object a line, on stdout. */

/** What `copy --json` and `serve --json` say. The last event is `done` or `error`. */
export type CopyEvent =
  | 'start'
  | 'listening'
  | 'rate'
  | 'progress'
  | 'hydrated'
  | 'failed'
  | 'verified'
  | 'done'
  | 'error';

/** Prints an event. */
export type Emit = (event: CopyEvent, fields: Readonly<Record<string, unknown>>) => void;

/** Prints to `stream`, or nothing at all. */
export function jsonLines(stream: NodeJS.WritableStream, options: { enabled: boolean }): Emit {
  if (!options.enabled) return () => {};
  return (event, fields) => {
    stream.write(`${JSON.stringify({ event, ...fields })}\n`);
  };
}
