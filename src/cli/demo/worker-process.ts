/** The demo's handle on its worker: a child process that runs this command. Each life is a new process. */

import { type ChildProcess, fork } from 'node:child_process';
import { CodError } from '../../errors.ts';
import type { Message, Request, State } from './messages.ts';

/** The result of a call, and the time it took in the worker. */
export interface Answer {
  readonly bytes: Uint8Array;
  readonly ms: number;
}

interface Waiter {
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/** Distributes over the union, so that `Omit` keeps the fields of each request. */
type Call<R = Request> = R extends Request ? Omit<R, 'id'> : never;

/** A process that has the image open. */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #waiters = new Map<number, Waiter>();
  readonly #onState: (state: State) => void;
  readonly #opened: Promise<State>;
  /** Resolves when the copy is complete and its metadata removed. Rejects if the process fails or dies. */
  readonly finished: Promise<void>;
  readonly #exited: Promise<void>;
  #settle!: { opened: (state: State) => void; finished: () => void; failed: (error: unknown) => void };
  #id = 0;

  private constructor(child: ChildProcess, onState: (state: State) => void) {
    this.#child = child;
    this.#onState = onState;
    let opened!: (state: State) => void;
    let notOpened!: (error: unknown) => void;
    this.#opened = new Promise((resolve, reject) => {
      opened = resolve;
      notOpened = reject;
    });
    this.finished = new Promise((resolve, reject) => {
      const failed = (error: unknown) => {
        notOpened(error);
        reject(error);
        for (const { reject } of this.#waiters.values()) reject(error);
        this.#waiters.clear();
      };
      this.#settle = { opened, finished: resolve, failed };
    });
    this.finished.catch(() => {});
    this.#exited = new Promise((resolve) => child.once('exit', () => resolve()));
    child.on('message', (message: Message) => this.#take(message));
    child.once('error', (error) => this.#settle.failed(error));
    child.once('exit', (code, signal) =>
      this.#settle.failed(new Error(`the worker process ended with ${signal ?? code}`)),
    );
  }

  /** Starts a process that copies `url` to `target`. Resolves when it can read and write. */
  static async start(
    url: string,
    target: string,
    onState: (state: State) => void,
  ): Promise<{ worker: WorkerProcess; state: State }> {
    const child = fork(process.argv[1]!, ['demo-worker', url, target], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const worker = new WorkerProcess(child, onState);
    try {
      return { worker, state: await worker.#opened };
    } catch (error) {
      await worker.kill();
      throw error;
    }
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  read(offset: number, length: number): Promise<Answer> {
    return this.#call({ call: 'read', offset, length });
  }

  write(offset: number, bytes: Uint8Array): Promise<Answer> {
    return this.#call({ call: 'write', offset, bytes });
  }

  flush(): Promise<Answer> {
    return this.#call({ call: 'flush' });
  }

  /** Sends SIGKILL. Resolves when the process is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    if (this.#child.pid !== undefined) await this.#exited;
  }

  #call(call: Call): Promise<Answer> {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject });
      this.#child.send({ ...call, id }, (error) => error && reject(error));
    });
  }

  #take(message: Message): void {
    if (message.event === 'open') this.#settle.opened(message.state);
    else if (message.event === 'state') this.#onState(message.state);
    else if (message.event === 'finished') this.#settle.finished();
    else {
      const waiter = message.id === undefined ? undefined : this.#waiters.get(message.id);
      if (message.id !== undefined) this.#waiters.delete(message.id);
      if (message.event === 'answer') waiter?.resolve({ bytes: message.bytes ?? new Uint8Array(0), ms: message.ms });
      else (waiter?.reject ?? this.#settle.failed)(revive(message.error));
    }
  }
}

function revive(error: Extract<Message, { event: 'failed' }>['error']): Error {
  return 'code' in error ? CodError.fromJSON(error) : Object.assign(new Error(error.message), { name: error.name });
}
