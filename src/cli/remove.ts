/** `copyondemand remove`: abandons a copy. Says what is lost, and removes target and metadata, and nothing else. */

import { lstatSync, realpathSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { withSignal } from '../async/with-signal.ts';
import { nodeFileSystem } from '../control/node-file-system.ts';
import { type RemovedCopy, removeCopyIn } from '../log/removal.ts';
import { systemEnvironment } from '../platform/environment.ts';
import { emitError, Interrupted, UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { formatBytes } from './units.ts';

/** Parsed options of the command. */
export interface RemoveFlags {
  readonly yes?: boolean;
  readonly json?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
  readonly takeOver?: boolean;
}

/**
 * Removes the copy at TARGET. Without `--yes` it asks, or on no terminal ends before it has changed anything.
 * @throws {@link UsageError} without `--yes` on no terminal; {@link Interrupted} if the answer is not yes; the errors
 * of `removeCopy`.
 */
export async function remove(
  target: string,
  { yes = false, json = false, takeOver = false, metadata = target }: RemoveFlags,
): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: json });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  let loss: RemovedCopy | undefined;
  try {
    if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
    const removed = await removeCopyIn(systemEnvironment, {
      fileSystem: nodeFileSystem(),
      target: fileOf(target),
      metadata,
      takeOver,
      signal,
      confirm: async (copy) => {
        loss = copy;
        if (!json) process.stderr.write(`${describeLoss(target, copy)}\n`);
        if (!yes) await ask(target, { json, signal });
      },
    });
    emit('done', fieldsOf(target, removed));
    if (!json) process.stderr.write(`removed ${removed.files.join(', ')}\n`);
  } catch (error) {
    emitError(emit, error, loss === undefined ? {} : fieldsOf(target, loss));
    throw error;
  } finally {
    interruption.stop();
  }
}

/** The file of a target: where a symbolic link leads. Its metadata is beside the link, and the link itself stays. */
function fileOf(target: string): string {
  try {
    return lstatSync(target).isSymbolicLink() ? realpathSync(target) : target;
  } catch {
    // The file is missing, as after a removal that was interrupted. The removal reports other errors.
    return target;
  }
}

async function ask(target: string, { json, signal }: { json: boolean; signal: AbortSignal }): Promise<void> {
  if (json || !process.stdin.isTTY || !process.stderr.isTTY)
    throw new UsageError(`nothing was removed: pass --yes to remove ${target} and its metadata`);
  process.stderr.write('Remove? [y/N] ');
  if (!/^\s*y(es)?\s*$/i.test(await withSignal(readLine(), signal))) throw new Interrupted('nothing was removed');
}

/** Reads a line from the terminal, which stays in its mode: Ctrl-C sends a signal. Returns '' at the end of input. */
async function readLine(): Promise<string> {
  const lines = createInterface({ input: process.stdin, terminal: false });
  try {
    for await (const line of lines) return line;
    return '';
  } finally {
    lines.close();
  }
}

function fieldsOf(target: string, { files, contents }: RemovedCopy): Readonly<Record<string, unknown>> {
  const { size = null, copiedBytes = null, modifiedBytes = null } = contents ?? {};
  return { target, files, size, copiedBytes, modifiedBytes };
}

/** Says in one line what a removal loses. */
export function describeLoss(target: string, { contents, targetBytes, keepsTarget }: RemovedCopy): string {
  if (contents === undefined) return `${target}: its metadata cannot be read; what users wrote would be lost`;
  const { size, copiedBytes, modifiedBytes } = contents;
  const part = copiedBytes === 0 ? 'nothing' : formatBytes(copiedBytes);
  const copied =
    copiedBytes === size ? `a complete image of ${formatBytes(size)}` : `${part} of ${formatBytes(size)} copied`;
  if (targetBytes === undefined) return `${target}: the file is missing; according to its metadata ${copied}`;
  const isOdd = copiedBytes > 0 && targetBytes !== size && !keepsTarget;
  const odd = isOdd ? `; the file has ${formatBytes(targetBytes)}, so another program changed it` : '';
  const written = `${formatBytes(modifiedBytes)} written by users exist only here`;
  const kept = keepsTarget ? '; the block device keeps its content' : '';
  return `${target}: ${copied}; ${modifiedBytes === 0 ? 'users wrote nothing' : written}${odd}${kept}`;
}
