/**
 * The owner's side of the control channel, over its socket (fs/lock-socket.ts).
 *
 * One JSON object per line. A client's first line is `{"token":…}` with the token of the lock, so that a stale path
 * never reaches another copy. Each further line is `{"command":…}`, perhaps with arguments, and gets one line as its
 * answer.
 */

import type { Socket } from 'node:net';
import type { MaybePromise } from '../async/done.ts';
import { isCodError } from '../errors.ts';

const MAX_LINE_BYTES = 65_536;

type Request = Readonly<Record<string, unknown>>;

/** Answers a command with an object, now or later. Undefined: there is no such command. Its rejection is an answer. */
export type Answer = (command: string, request: Request) => MaybePromise<object> | undefined;

/** Serves a connection. */
export function serveControl(socket: Socket, token: string, answer: Answer): void {
  let isTrusted = false;
  onLines(socket, (line) => {
    const request = parse(line);
    if (!isTrusted) {
      isTrusted = request?.['token'] === token;
      if (!isTrusted) socket.end(lineOf(failure('COD_NOT_RUNNING', 'the first line must have the token of the lock')));
      return isTrusted;
    }
    const command = request?.['command'];
    const found = typeof command === 'string' ? answer(command, request!) : undefined;
    if (found instanceof Promise) void answerLater(socket, found);
    else socket.write(lineOf(found ?? failure('COD_UNSUPPORTED', `unknown command ${JSON.stringify(command)}`)));
    return true;
  });
}

/** A client that waits for its answer is not silent. */
async function answerLater(socket: Socket, found: Promise<object>): Promise<void> {
  const { timeout = 0 } = socket;
  socket.setTimeout(0);
  const answer = await found.catch((error: unknown) =>
    isCodError(error) ? failure(error.code, error.message) : failure('COD_UNSUPPORTED', String(error)),
  );
  socket.setTimeout(timeout);
  socket.write(lineOf(answer));
}

function failure(code: string, message: string): object {
  return { error: { code, message } };
}

/** Returns an object as a line. */
export function lineOf(value: object): string {
  return `${JSON.stringify(value)}\n`;
}

function parse(line: string): Request | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Calls `use` with each line, until it returns false. Ends a connection with a line that is too long. */
export function onLines(socket: Socket, use: (line: string) => boolean): void {
  let rest = '';
  let isOpen = true;
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      if (isOpen) isOpen = use(line);
    }
    if (rest.length > MAX_LINE_BYTES) socket.destroy();
  });
}
