/** Names `copyondemand repair` in the errors for metadata that it can repair. */

import { nodeFileSystem } from '../control/node-file-system.ts';
import { CodError, isCodError } from '../errors.ts';
import { systemEnvironment } from '../platform/environment.ts';

/**
 * Returns the error to throw in the place of `error`. Changes nothing on disk.
 * @param metadata prefix of the names of the metadata. Default: `target`.
 */
export async function withRepairAdvice(error: unknown, target: string, metadata?: string): Promise<unknown> {
  if (!isCodError(error, 'COD_CORRUPT')) return error;
  try {
    const { repairIn } = await import('../log/repair.ts');
    const fileSystem = nodeFileSystem('.', { readOnly: true });
    const { problems } = await repairIn(systemEnvironment, { fileSystem, target, metadata, apply: false });
    if (problems.length === 0) return error;
  } catch {
    // What a repair refuses, such as a missing target, has another remedy.
    return error;
  }
  const command = `copyondemand repair ${target}${metadata === undefined ? '' : ` --metadata ${metadata}`}`;
  const message = `${error.message}; \`${command}\` says what can be saved`;
  return new CodError(error.code, message, { cause: error.cause, details: error.details });
}
