/** What the process that owns a copy tells of it: to clients of the control channel, and at SIGUSR1. */

import { resolve } from 'node:path';
import { OwnedCopy, type OwnerFacts } from '../control/owner.ts';
import { controlServer } from '../control/server.ts';
import type { InlineDevice } from '../device/types.ts';
import type { ControlOf } from '../fs/node.ts';
import type { RetryReport } from '../sources/retry.ts';
import { describeStatus } from './status.ts';
import { tellOnSignal } from './status-signal.ts';

export class OwnerAnswers {
  readonly #target: string;
  readonly #facts: OwnerFacts;
  readonly #forget: () => void;
  #copy: OwnedCopy | undefined;

  /** Answers from now on that the copy at `target` is being opened. */
  constructor(target: string, facts: OwnerFacts) {
    this.#target = target;
    this.#facts = facts;
    this.#forget = tellOnSignal(() => this.#line());
  }

  /** Answers clients, once the copy is locked. */
  readonly control: ControlOf = (owner, paths) =>
    controlServer((this.#copy = new OwnedCopy(owner, paths, this.#facts)));

  /** The source, which is being opened, is tried again. */
  retry(report: RetryReport): void {
    this.#copy?.failed(report);
  }

  /** The source is open. */
  recovered(): void {
    this.#copy?.recovered();
  }

  /** Answers for an open device from now on, until it is closed. A copy that is only read has no lock. */
  opened(device: InlineDevice, { metadata = this.#target }: { metadata?: string | undefined }): void {
    const owner = { target: this.#target, device, events: device.events.bind(device) };
    this.#copy ??= new OwnedCopy(owner, { target: resolve(this.#target), metadata: resolve(metadata) }, this.#facts);
    const untilClosed = async (): Promise<void> => {
      for await (const _ of device.events());
      this.#forget();
    };
    void untilClosed();
  }

  /** The device could not be opened. */
  failed(): void {
    this.#forget();
  }

  #line(): string {
    return this.#copy === undefined
      ? `${this.#target}: opening, process ${process.pid}\n`
      : describeStatus(this.#copy.status());
  }
}
