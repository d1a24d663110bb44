/** Replays a trace, step by step, over any file system. */

import { CodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { checksum, decodeBytes, lengthOf, PIECE_BYTES, parseTrace, type TraceBytes, type TraceStep } from './trace.ts';

/** Options of {@link replayTrace}. */
export interface ReplayOptions {
  /** The most bytes of a file: a damaged trace must not fill the disk. Default: 2^30. */
  readonly maxFileBytes?: number;
}

/**
 * Replays a trace over a file system. Yields each step once it is done, so that all steps are done when the iteration
 * ends. A rejected call is not repeated: the replay writes the bytes that the call left.
 *
 * @param trace as {@link FileSystemRecorder.trace} returns it
 * @param fileSystem must not have files of the same names
 * @throws {@link CodError} COD_CORRUPT when the trace is damaged, or when a read or a size differs from the recorded
 *   one; COD_VERSION when another version wrote the trace; COD_NO_SPACE when a file becomes too long; the errors of the
 *   file system.
 * @example
 * ```ts
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { FileSystemRecorder, replayTrace } from 'copyondemand/testing';
 *
 * const recorder = new FileSystemRecorder(memfsFileSystem());
 * await recorder.fileSystem.remove('notes');
 * for await (const step of replayTrace(recorder.trace(), memfsFileSystem())) {
 *   console.log(JSON.stringify(step)); // {"op":"remove","name":"notes"}
 * }
 * ```
 */
export async function* replayTrace(
  trace: Uint8Array | string,
  fileSystem: FileSystem,
  { maxFileBytes = 2 ** 30 }: ReplayOptions = {},
): AsyncGenerator<TraceStep, void, undefined> {
  const files = new Map<number, File>();
  let number = 0;
  const corrupt = (step: TraceStep, what: string): CodError =>
    new CodError('COD_CORRUPT', `trace, step ${number}, ${step.op}: ${what}`, {
      details: { step: number, op: step.op },
    });
  const fileOf = (step: TraceStep & { file: number }): File => {
    const file = files.get(step.file);
    if (file === undefined) throw corrupt(step, `file ${step.file} is not open`);
    return file;
  };
  const checkEnd = (end: number): void => {
    if (end <= maxFileBytes) return;
    throw new CodError(
      'COD_NO_SPACE',
      `trace, step ${number}: a file of ${end} bytes, at most ${maxFileBytes} are allowed`,
      {
        details: { bytes: end, allowed: maxFileBytes },
      },
    );
  };
  const write = async (file: File, bytes: TraceBytes, offset: number): Promise<void> => {
    checkEnd(offset + lengthOf(bytes));
    let at = offset;
    for (const piece of decodeBytes(bytes)) {
      await file.write(piece, at);
      at += piece.length;
    }
  };
  const perform = async (step: TraceStep): Promise<void> => {
    switch (step.op) {
      case 'content': {
        const file = await fileSystem.open(step.name, { create: true });
        try {
          if (step.size !== undefined) checkEnd(step.size);
          if (step.size !== undefined) await file.truncate(step.size);
          await write(file, step.bytes, step.offset);
          await file.sync();
        } finally {
          await file.close();
        }
        return;
      }
      case 'open':
        if ('error' in step) return;
        if (files.has(step.file)) throw corrupt(step, `file ${step.file} is already open`);
        files.set(step.file, await fileSystem.open(step.name, { create: step.create }));
        return;
      case 'remove':
        return step.error === undefined ? fileSystem.remove(step.name) : undefined;
      case 'size': {
        const size = step.error === undefined ? await fileOf(step).size() : undefined;
        if (size !== step.size) throw corrupt(step, `file ${step.file} has ${size} bytes instead of ${step.size}`);
        return;
      }
      case 'read': {
        const file = fileOf(step);
        if (step.error !== undefined) return;
        let sum: number | undefined;
        for (let at = 0; at < step.length; at += PIECE_BYTES) {
          const piece = new Uint8Array(Math.min(PIECE_BYTES, step.length - at));
          await file.read(piece, step.offset + at);
          sum = checksum(piece, sum);
        }
        sum ??= checksum(new Uint8Array());
        if (sum !== step.sum)
          throw corrupt(
            step,
            `${step.length} bytes at ${step.offset} of file ${step.file} differ from the recorded read`,
          );
        return;
      }
      case 'write': {
        const file = fileOf(step);
        if (step.error !== undefined && step.size === undefined) return;
        await write(file, step.bytes, step.offset);
        if (step.size !== undefined && step.size > (await file.size())) {
          checkEnd(step.size);
          await file.truncate(step.size);
        }
        return;
      }
      case 'truncate':
        checkEnd(step.size);
        return fileOf(step).truncate(step.size);
      case 'sync':
        return step.error === undefined ? fileOf(step).sync() : undefined;
      case 'close': {
        const file = fileOf(step);
        files.delete(step.file);
        return file.close();
      }
      case 'cut':
        return;
    }
  };
  try {
    for (const step of parseTrace(trace)) {
      number++;
      await perform(step);
      yield step;
    }
  } finally {
    for (const file of files.values()) await file.close();
  }
}
