/** What the process that owns a copy tells of it: to clients of the control channel, and at SIGUSR1. */

import type { Device } from '../device/types.ts';
import { CodError } from '../errors.ts';
import type { RateControl } from './rate-control.ts';
import { answerSnapshot } from './snapshot.ts';
import { type CopyStatus, describeStatus, statusOf } from './status.ts';
import { tellOnSignal } from './status-signal.ts';
import { answerSteering } from './steering.ts';

/** What a client may ask for, beside the status. */
const COMMANDS: ReadonlySet<string> = new Set(['snapshot', 'pause', 'resume', 'set-rate']);

export interface OwnedCopy {
  readonly target: string;
  /** Undefined: no background copy, or one that nothing limits. */
  readonly rate?: RateControl | undefined;
  /** Returns the number of clients that use the copy. Undefined: nothing serves it. */
  readonly clients?: (() => number) | undefined;
}

export class OwnerAnswers {
  readonly #copy: OwnedCopy;
  readonly #forget: () => void;
  #opened: { readonly device: Device; readonly status: () => CopyStatus } | undefined;

  /** Answers from now on that the copy is being opened. */
  constructor(copy: OwnedCopy) {
    this.#copy = copy;
    this.#forget = tellOnSignal(() => this.#line());
  }

  /** Answers for an open device from now on, until it is closed. */
  opened(device: Device, source: string | null): void {
    const { target, clients } = this.#copy;
    this.#opened = { device, status: statusOf(device, { target, source, clients, onClosed: this.#forget }) };
  }

  /** The device could not be opened. */
  failed(): void {
    this.#forget();
  }

  /** As `Answer` of the control channel. */
  answer(command: string, request: Readonly<Record<string, unknown>>): Promise<object> | object | undefined {
    const { target, rate } = this.#copy;
    if (command === 'status') return this.#opened?.status() ?? { target, pid: process.pid, state: 'opening' };
    if (!COMMANDS.has(command)) return undefined;
    if (this.#opened !== undefined) {
      const { device } = this.#opened;
      return answerSteering({ device, rate }, command, request) ?? answerSnapshot(device, target, request);
    }
    return Promise.reject(new CodError('COD_NOT_RUNNING', `${target} is being opened; try again`));
  }

  #line(): string {
    return this.#opened === undefined
      ? `${this.#copy.target}: opening, process ${process.pid}\n`
      : describeStatus(this.#opened.status());
  }
}
