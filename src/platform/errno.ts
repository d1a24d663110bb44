/** Converts system errors of Node and memfs to {@link CodError}s. */

import { CodError, type CodErrorCode } from '../errors.ts';

const CODES: Readonly<Record<string, CodErrorCode>> = {
  ENOENT: 'COD_NOT_FOUND',
  ENOSPC: 'COD_NO_SPACE',
  EDQUOT: 'COD_NO_SPACE',
  EFBIG: 'COD_NO_SPACE',
  ENOMEM: 'COD_NO_MEMORY',
};

/** Returns the name of a system error, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/**
 * Returns the {@link CodError} for a failed call. `operation` says what failed and where; `cause` is what the call
 * threw.
 */
export function ioError(operation: string, cause: unknown, details: Readonly<Record<string, unknown>> = {}): CodError {
  if (cause instanceof CodError) return cause;
  const errno = errnoOf(cause);
  const reason = cause instanceof Error ? cause.message : String(cause);
  // A file system in memory cannot grow: offsets and lengths were checked before.
  const otherwise = cause instanceof RangeError ? 'COD_NO_MEMORY' : 'COD_TARGET_IO';
  return new CodError(CODES[errno ?? ''] ?? otherwise, `${operation}: ${reason}`, {
    cause,
    details: { ...details, ...(errno === undefined ? {} : { errno }) },
  });
}
