/**
 * The owner's side of the control channel, over its socket (fs/lock-socket.ts).
 *
 * One JSON object per line. A client's first line is `{"token":…}` with the token of the lock, so that a stale path
 * never reaches another copy. Each further line is `{"command":…}`, perhaps with arguments. Its answer is one line: an
 * object, or `{"error":…}`.
 *
 * - `snapshot` may take any time, so an empty object comes first: the owner has understood.
 * - `events` has an empty object as its answer. Then comes a line for each event, and an empty object after the last
 *   one. The connection has no further command.
 *
 * Memory: a client has one command at a time, and the next line is read when its answer has been taken.
 */

import type { Socket } from 'node:net';
import type { MaybePromise } from '../async/done.ts';
import { isCodError } from '../errors.ts';
import { linesOf, parseObject, send } from './lines.ts';

const MAX_REQUEST_BYTES = 65_536;
/** Connections of one owner that follow its events. */
const MAX_FOLLOWERS = 8;

export type Request = Readonly<Record<string, unknown>>;

/** What an owner answers. */
export interface Answers {
  /** Answers a command, now or later. Undefined: there is no such command. A rejection is an answer, too. */
  answer(command: string, request: Request): MaybePromise<object> | undefined;
  /** Yields events until the signal is aborted. */
  events(signal: AbortSignal): AsyncIterable<object>;
}

/** Returns a function that serves the connections of one owner. */
export function controlServer(answers: Answers): (socket: Socket, token: string) => void {
  let followers = 0;
  const follow = async (socket: Socket, lines: AsyncGenerator<string>): Promise<void> => {
    if (followers >= MAX_FOLLOWERS) {
      await send(socket, failure('COD_UNSUPPORTED', `${MAX_FOLLOWERS} clients follow the events already`));
      return;
    }
    followers++;
    const over = new AbortController();
    const abort = (): void => over.abort();
    try {
      // The client is gone, or speaks again.
      lines.next().then(abort, abort);
      const events = answers.events(over.signal);
      await send(socket, {});
      for await (const event of events) await send(socket, { event });
      await send(socket, {});
    } finally {
      followers--;
      abort();
    }
  };
  return (socket, token) => void serve(socket, token, answers, follow).catch(() => undefined);
}

async function serve(
  socket: Socket,
  token: string,
  answers: Answers,
  follow: (socket: Socket, lines: AsyncGenerator<string>) => Promise<void>,
): Promise<void> {
  const lines = linesOf(socket, MAX_REQUEST_BYTES);
  const { timeout = 0 } = socket;
  try {
    const first = await lines.next();
    if (first.done) return;
    if (parseObject(first.value)?.['token'] !== token) {
      await send(socket, failure('COD_NOT_RUNNING', 'the first line must have the token of the lock'));
      return;
    }
    for (;;) {
      const line = await lines.next();
      if (line.done) return;
      const request = parseObject(line.value) ?? {};
      // A client that waits for its answer is not silent.
      socket.setTimeout(0);
      if (request['command'] === 'events') {
        await follow(socket, lines);
        return;
      }
      if (request['command'] === 'snapshot') await send(socket, {});
      const answer = await answerOf(answers, request);
      socket.setTimeout(timeout);
      await send(socket, answer);
    }
  } finally {
    socket.setTimeout(timeout);
    socket.destroySoon();
  }
}

async function answerOf(answers: Answers, request: Request): Promise<object> {
  const { command } = request;
  try {
    const found = typeof command === 'string' ? answers.answer(command, request) : undefined;
    if (found !== undefined) return await found;
    return failure('COD_UNSUPPORTED', `unknown command ${JSON.stringify(command)}`);
  } catch (error) {
    return isCodError(error) ? failure(error.code, error.message) : failure('COD_UNSUPPORTED', String(error));
  }
}

function failure(code: string, message: string): object {
  return { error: { code, message } };
}
