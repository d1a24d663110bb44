/**
 * Processes of one user on one machine that share a bandwidth. There is no coordinator: each member keeps a file in the
 * group's directory and counts the files of the others.
 *
 * - A member makes its file with its first beat and removes it when it leaves.
 * - A file is one line of JSON, padded to a fixed length. Each beat rewrites it in place, so that readers never see a
 *   part of it.
 * - A member removes the files of dead and silent members. A member that was only stopped makes its file again with its
 *   next beat.
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

/** The content of a member's file. */
interface Note extends ProcessIdentity {
  readonly beat: number;
  readonly total?: number | undefined;
}

/** The last note of each member in this process, by the names of their files. Nothing reads these files here. */
const ownNotes = new Map<string, Note>();

/** A copy of this process as a member of a group. */
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
   * Writes a beat of this member, reads those of the others and returns the shares. Call it every `BEAT_MS`.
   * @param total bytes per second for the whole group; undefined if this member was given none
   * @param nowMs time of a monotonic clock
   * @throws {@link CodError} COD_TARGET_IO or COD_NO_SPACE if the group's directory cannot be used.
   */
  beat(total: number | undefined, nowMs: number): Shares {
    const directory = runtimeDirectory(`rate-${this.#group}`);
    try {
      this.#show(join(directory, this.#name), { ...this.#self, beat: ++this.#beats, total });
      const shares = this.#view.look(this.#seen(directory), total, nowMs);
      for (const name of shares.gone) fs.rmSync(join(directory, name), { force: true });
      return shares;
    } catch (error) {
      throw ioError(`share the rate of group ${this.#group}`, error);
    }
  }

  /** Gives this member's share back to the others. The next beat joins again. */
  leave(): void {
    ownNotes.delete(this.#name);
    try {
      fs.rmSync(join(runtimeDirectory(`rate-${this.#group}`), this.#name), { force: true });
    } catch {
      // The other members then drop this one after its silence.
    }
  }

  #show(path: string, note: Note): void {
    ownNotes.set(this.#name, note);
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
      .flatMap((name): SeenMember[] => {
        const own = ownNotes.get(name);
        // With many copies in one process, each one would read the files of all others.
        if (own !== undefined) return [{ name, beat: String(own.beat), total: own.total, mayBeAlive: true }];
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

/** Returns the first bytes of a file; undefined if the file was removed meanwhile. */
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

/**
 * Returns undefined for a file that is still being made or is invalid. Its member counts until it has been silent for
 * too long.
 */
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
