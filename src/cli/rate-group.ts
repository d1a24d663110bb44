/**
 * Processes of one user on one machine that share a bandwidth, without anybody in charge: each keeps a file in the group's folder and counts the files of the others.
 *
 * A member's file is made when it begins to copy and removed when it has done. A file is one line of JSON, padded to always the same length and rewritten in place
 * with each beat, so that nobody sees a part of it. Whoever finds that a member is dead, or silent, removes its file; one that was only stopped
 * makes it again with its next beat.
 */

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { mayBeAlive, type ProcessIdentity, thisProcess } from '../fs/node-process.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import { GroupView, type SeenMember, type Shares } from './rate-share.ts';
import { runtimeDirectory } from './runtime-directory.ts';

const SUFFIX = '.member';
const FILE_BYTES = 512;

/** What a member's file says. */
interface Note extends ProcessIdentity {
  readonly beat: number;
  readonly total?: number | undefined;
}

/** This process as a member of a group. */
export class RateGroup {
  readonly #group: string;
  readonly #name = `${process.pid}-${randomBytes(8).toString('hex')}${SUFFIX}`;
  readonly #self = thisProcess();
  readonly #view = new GroupView(this.#name);
  #beats = 0;

  /** Does no I/O: a member joins with its first beat. */
  constructor(group: string) {
    this.#group = group;
  }

  /**
   * Shows that this member lives and was told `total` bytes per second for all, and looks at the others. To be called every `BEAT_MS`.
   * @param nowMs of a clock that never goes back
   * @throws {@link CodError} COD_TARGET_IO, COD_NO_SPACE if the group's folder cannot be used
   */
  beat(total: number | undefined, nowMs: number): Shares {
    const directory = runtimeDirectory(`rate-${this.#group}`);
    try {
      this.#show(join(directory, this.#name), { ...this.#self, beat: ++this.#beats, total });
      const shares = this.#view.look(this.#seen(directory), total, nowMs);
      for (const name of shares.gone) fs.rmSync(join(directory, name), { force: true });
      return shares;
    } catch (error) {
      throw ioError(`share the rate of the group ${this.#group}`, error);
    }
  }

  /** Gives this member's share back to the others. Another beat joins again. */
  leave(): void {
    try {
      fs.rmSync(join(runtimeDirectory(`rate-${this.#group}`), this.#name), { force: true });
    } catch {
      // Then the others notice that it is silent.
    }
  }

  #show(path: string, note: Note): void {
    const line = Buffer.from(`${JSON.stringify(note).padEnd(FILE_BYTES - 1)}\n`);
    const fd = openOrMake(path);
    try {
      fs.writeSync(fd, line, 0, line.length, 0);
    } finally {
      fs.closeSync(fd);
    }
  }

  #seen(directory: string): SeenMember[] {
    return fs
      .readdirSync(directory)
      .filter((name) => name.endsWith(SUFFIX))
      .flatMap((name) => {
        const text = readStart(join(directory, name));
        if (text === undefined) return [];
        const note = parseNote(text);
        return [
          { name, beat: text, total: note?.total, mayBeAlive: note === undefined || mayBeAlive(note, this.#self) },
        ];
      });
  }
}

function openOrMake(path: string): number {
  try {
    return fs.openSync(path, 'r+');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return fs.openSync(path, 'wx', 0o600);
  }
}

/** Undefined if the file has gone meanwhile. */
function readStart(path: string): string | undefined {
  try {
    const fd = fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
    try {
      const bytes = Buffer.alloc(FILE_BYTES);
      return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, FILE_BYTES, 0));
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Undefined for a member that is just being made, or that says nothing sensible: it counts until it has been silent for long. */
function parseNote(text: string): Note | undefined {
  try {
    const note = JSON.parse(text) as Partial<Note> | null;
    if (note === null || !Number.isSafeInteger(note.pid) || note.pid! <= 0) return undefined;
    if (note.total !== undefined && !(Number.isSafeInteger(note.total) && note.total > 0)) return undefined;
    return note as Note;
  } catch {
    return undefined;
  }
}
