/**
 * A file to which lines are appended. It never harms the command:
 *
 * - Writes are asynchronous. While one is in flight, further lines wait in memory, which is bounded; beyond that they
 *   are lost and counted.
 * - A line that cannot be written, as on a full disk, is lost and counted. The number is in the file once it can be
 *   written again.
 * - A file that was rotated (renamed or removed) is made again: before a write, its name is looked up once a second.
 */

import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { CodError } from '../../errors.ts';
import { ioError } from '../../platform/errno.ts';

const MAX_WAITING_BYTES = 2 ** 18;
const LOOK_MS = 1000;
/** The end of the command waits so long for the last write. */
const CLOSE_MS = 2000;
const MODE = 0o640;
const FLAGS = constants.O_CREAT | constants.O_APPEND | constants.O_RDWR;
/** The beginning of each line. */
const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /;
const STAMP_BYTES = 25;

export interface LogFileOptions {
  /** Called when the first line is lost, with the reason. */
  readonly onLost: (error: Error) => void;
  /** Milliseconds. */
  readonly now?: () => number;
}

export class LogFile {
  readonly #path: string;
  readonly #options: Required<LogFileOptions>;
  #handle: FileHandle;
  #lookedAtMs: number;
  #waiting: string[] = [];
  #waitingBytes = 0;
  #lost = 0;
  #writing: Promise<void> | undefined;

  /**
   * Opens or makes the file.
   * @throws {@link CodError} COD_EXISTS if the file holds something else; COD_NOT_FOUND, COD_TARGET_IO
   */
  static async open(path: string, options: LogFileOptions): Promise<LogFile> {
    const handle = await open(path, FLAGS, MODE).catch((cause: unknown) => {
      throw ioError(`open ${path}`, cause, { path });
    });
    try {
      await refuseOther(handle, path);
    } catch (error) {
      await handle.close();
      throw error;
    }
    return new LogFile(path, handle, options);
  }

  private constructor(path: string, handle: FileHandle, { onLost, now = () => performance.now() }: LogFileOptions) {
    this.#path = path;
    this.#handle = handle;
    this.#options = { onLost, now };
    this.#lookedAtMs = now();
  }

  /** Appends a line, later. Never throws. */
  add(time: Date, text: string): void {
    const line = `${time.toISOString()} ${text.replaceAll('\n', ' ')}\n`;
    if (this.#waitingBytes + line.length > MAX_WAITING_BYTES) {
      this.#lose(1, new Error('the disk is too slow'));
      return;
    }
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      const lost = this.#lost;
      this.#waiting = [];
      this.#waitingBytes = 0;
      try {
        await this.#reopenIfRotated();
        const gap = lost === 0 ? '' : `${new Date().toISOString()} warning: ${lost} lines are lost\n`;
        await this.#handle.appendFile(gap + lines.join(''));
        this.#lost -= lost;
      } catch (error) {
        this.#lose(lines.length, error as Error);
      }
    }
  }

  #lose(lines: number, error: Error): void {
    if (this.#lost === 0) this.#options.onLost(error);
    this.#lost += lines;
  }

  async #reopenIfRotated(): Promise<void> {
    const now = this.#options.now();
    if (now - this.#lookedAtMs < LOOK_MS) return;
    this.#lookedAtMs = now;
    const [ours, named] = await Promise.all([this.#handle.stat(), stat(this.#path).catch(() => undefined)]);
    if (named?.ino === ours.ino && named.dev === ours.dev) return;
    const next = await open(this.#path, FLAGS, MODE);
    const before = this.#handle;
    this.#handle = next;
    await before.close();
  }

  /** Writes what waits, as far as that does not take long, and closes the file. */
  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, CLOSE_MS)));
    await Promise.race([this.#writing ?? Promise.resolve(), late]);
    clearTimeout(timer);
    // A write that hangs keeps the file open.
    if (this.#writing === undefined) await this.#handle.close().catch(() => undefined);
  }
}

/** A path in the wrong place must not add lines to an image. */
async function refuseOther(handle: FileHandle, path: string): Promise<void> {
  const stats = await handle.stat();
  if (stats.isBlockDevice()) throw isNoLog(path);
  if (!stats.isFile() || stats.size === 0) return;
  const { bytesRead, buffer } = await handle.read({ buffer: Buffer.alloc(STAMP_BYTES), position: 0 });
  if (!STAMP.test(buffer.toString('latin1', 0, bytesRead))) throw isNoLog(path);
}

function isNoLog(path: string): CodError {
  return new CodError('COD_EXISTS', `${path} is not a log of this program: name another file`, { details: { path } });
}
