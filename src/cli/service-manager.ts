/**
 * The service manager of the machine (systemd): sockets that it hands over, and what the server tells it.
 *
 * Protocols: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3). Node has no datagram sockets of the kind that
 * notifications need, so `systemd-notify` sends them.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { UsageError } from './failure.ts';

/** The first descriptor that is handed over, `SD_LISTEN_FDS_START`. */
const FIRST_DESCRIPTOR = 3;
/** `systemd-notify` waits until its message was processed. A manager that hangs must not delay the end for long. */
const PATIENCE_MS = 5000;
/** Time between two texts of the state, if the watchdog does not ask for more. */
const STATUS_MS = 15_000;

type Variables = Readonly<Record<string, string | undefined>>;

/**
 * Returns the descriptors of the sockets that were handed over to this process.
 * @throws {@link UsageError} if `LISTEN_FDS` is not a number.
 */
export function handedSockets(env: Variables = process.env, pid: number = process.pid): number[] {
  // The variables are inherited: they count for one process only.
  if (env['LISTEN_FDS'] === undefined || env['LISTEN_PID'] !== String(pid)) return [];
  const count = Number(env['LISTEN_FDS']);
  if (!Number.isInteger(count) || count < 0 || count > 1024)
    throw new UsageError(`LISTEN_FDS is ${JSON.stringify(env['LISTEN_FDS'])}, not a number of descriptors`);
  return Array.from({ length: count }, (_, index) => FIRST_DESCRIPTOR + index);
}

/** Tells the service manager about the server. Without a manager nothing happens. */
export interface ServiceManager {
  /** Clients can connect. From now on `status` is asked for one line about the state, every few seconds. */
  ready(status: () => string): void;
  /** The configuration is being read again; `ready` follows. */
  reloading(): void;
  /** The server ends: it must not be killed by the watchdog meanwhile. Resolves when that has been sent. */
  stopping(): Promise<void>;
}

/** @param onProblem called once when a message cannot be sent */
export function serviceManager(
  onProblem: (message: string) => void,
  env: Variables = process.env,
  pid: number = process.pid,
): ServiceManager {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: watchdog, WATCHDOG_PID: watched } = env;
  if (socket === undefined || socket === '')
    return { ready: () => undefined, reloading: () => undefined, stopping: async () => undefined };
  const isWatched = Number(watchdog) > 0 && (watched === undefined || watched === String(pid));
  // Twice as often as needed, as sd_watchdog_enabled(3) recommends.
  const intervalMs = isWatched ? Math.min(STATUS_MS, Number(watchdog) / 2000) : STATUS_MS;
  return new Notifier(onProblem, intervalMs, isWatched);
}

class Notifier implements ServiceManager {
  readonly #onProblem: (message: string) => void;
  readonly #intervalMs: number;
  readonly #isWatched: boolean;
  #timer: NodeJS.Timeout | undefined;
  #told = '';
  #hasFailed = false;
  /** Messages are sent one after another. */
  #sent: Promise<void> = Promise.resolve();

  constructor(onProblem: (message: string) => void, intervalMs: number, isWatched: boolean) {
    this.#onProblem = onProblem;
    this.#intervalMs = intervalMs;
    this.#isWatched = isWatched;
  }

  ready(status: () => string): void {
    this.#told = status();
    this.#send('READY=1', `STATUS=${this.#told}`);
    clearInterval(this.#timer);
    this.#timer = setInterval(() => {
      const text = status();
      const lines = [...(this.#isWatched ? ['WATCHDOG=1'] : []), ...(text === this.#told ? [] : [`STATUS=${text}`])];
      this.#told = text;
      if (lines.length > 0) this.#send(...lines);
    }, this.#intervalMs);
  }

  reloading(): void {
    // systemd compares it with its own CLOCK_MONOTONIC.
    this.#send('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  async stopping(): Promise<void> {
    clearInterval(this.#timer);
    this.#send('STOPPING=1', 'STATUS=stopping');
    await this.#sent;
  }

  #send(...lines: readonly string[]): void {
    this.#sent = this.#sent
      .then(() => notify(lines))
      .catch((error: unknown) => {
        if (this.#hasFailed) return;
        this.#hasFailed = true;
        const reason = error instanceof Error ? error.message : String(error);
        this.#onProblem(`NOTIFY_SOCKET is set, but systemd-notify cannot tell the service manager: ${reason}`);
      });
  }
}

/** Sends one message. */
async function notify(lines: readonly string[]): Promise<void> {
  const child = spawn('systemd-notify', [...lines], { stdio: ['ignore', 'ignore', 'pipe'], timeout: PATIENCE_MS });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(0, 1000)));
  const [exitCode, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (exitCode !== 0) throw new Error(stderr.trim() || `it ended with ${exitCode ?? signal}`);
}
