/** The client's side of the control channel. */

import { CodError, type CodErrorCode } from '../errors.ts';
import { parseOwner, RELEASED, readIfThere } from '../fs/lock-owner.ts';
import { connect, mayBeListening } from '../fs/lock-socket.ts';
import { lockFileOf } from '../fs/node-lock.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import { lineOf, onLines } from './server.ts';

const PATIENCE_MS = 5000;

/**
 * Asks the owner of `target`. Resolves to its answer, or to undefined if no process owns it. A
 * snapshot may take any time.
 * @throws {@link CodError} COD_NOT_RUNNING if the owner does not answer, or is on another machine; the owner's error.
 */
export async function askOwner(
  target: string,
  command: string,
  argument?: Readonly<Record<string, string>>,
): Promise<Record<string, unknown> | undefined> {
  const file = lockOf(target);
  const line = file === undefined ? undefined : readIfThere(file);
  const owner = line === undefined ? undefined : parseOwner(line);
  if (line === undefined || owner?.beat === RELEASED) return undefined;
  const path = `${file}.${owner?.socket}`;
  if (owner?.socket !== undefined && !(await mayBeListening(path))) return undefined;
  try {
    if (owner?.socket === undefined) throw new Error('it has no control socket');
    const request = lineOf({ token: owner.token }) + lineOf({ ...argument, command });
    return await ask(path, request, command === 'snapshot' ? 0 : PATIENCE_MS);
  } catch (cause) {
    if (cause instanceof CodError) throw cause;
    throw new CodError('COD_NOT_RUNNING', `the owner of ${target} does not answer`, { cause, details: { target } });
  }
}

function lockOf(target: string): string | undefined {
  try {
    return lockFileOf(target);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    throw ioError(`read ${target}`, cause);
  }
}

/** @param patienceMs milliseconds of silence after which the owner does not answer; 0: any time */
async function ask(path: string, request: string, patienceMs: number): Promise<Record<string, unknown>> {
  const socket = await connect(path);
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the connection ended')));
    socket.setTimeout(patienceMs, () => socket.destroy());
    onLines(socket, (line) => {
      const { error, ...answer } = JSON.parse(line) as { error?: { code: CodErrorCode; message: string } };
      if (error === undefined) resolve(answer);
      else reject(CodError.fromJSON({ name: 'CodError', details: {}, ...error }));
      socket.destroy();
      return false;
    });
    socket.write(request);
  });
}
