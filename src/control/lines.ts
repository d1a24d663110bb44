/** Objects over a socket: one line of JSON for each. */

import type { Socket } from 'node:net';

/**
 * Yields the lines that come. The socket is read only as fast as the lines are taken.
 * @param maxBytes characters of a line
 * @throws an error for a longer line, or as the socket fails
 */
export async function* linesOf(socket: Socket, maxBytes: number): AsyncGenerator<string, undefined> {
  let rest = '';
  for await (const text of socket.setEncoding('utf8') as AsyncIterable<string>) {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    if (rest.length > maxBytes) throw new Error(`a line is longer than ${maxBytes} bytes`);
    yield* lines;
  }
  return undefined;
}

/** Sends an object. Resolves when the system has taken it. Rejects if the socket ends first. */
export function send(socket: Socket, value: object): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(`${JSON.stringify(value)}\n`, (error) => (error ? reject(error) : resolve()));
  });
}

/** Returns the object of a line; undefined if the line is something else. */
export function parseObject(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
