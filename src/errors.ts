/** The errors of this package: one class with a stable code. Codes are API, messages are not. */

/**
 * The code of a {@link CodError}. Codes are API, messages are not.
 *
 * - `COD_NOT_FOUND`: a file, a folder, a host, an export or an HTTP resource does not exist.
 * - `COD_SHORT_READ`: a file or a source ends before the end of the range.
 * - `COD_SOURCE_IO`: the source cannot be read, also after retries.
 * - `COD_SOURCE_CHANGED`: the source holds other content than before.
 * - `COD_TARGET_IO`: an operation on a file of the target's file system failed, or listening at an address failed.
 * - `COD_NO_SPACE`: the disk, the quota or the map of dirty parts is full.
 * - `COD_NO_MEMORY`: there is no memory for the block maps, for bytes or for a WebAssembly instance.
 * - `COD_EXISTS`: the name is taken by a file that is not ours, or by a file of another kind.
 * - `COD_LOCKED`: another device, process or tab uses the file or the address.
 * - `COD_CORRUPT`: metadata is damaged, or the target does not match its metadata, or a source's image is damaged.
 * - `COD_VERSION`: a newer version wrote the file.
 * - `COD_SIZE_MISMATCH`: copy and source, or log and storage, differ in size.
 * - `COD_MISMATCH`: bytes do not have the digest that a manifest gives for them.
 * - `COD_CLOSED`: the object was closed, or its worker has ended.
 * - `COD_POISONED`: a sync failed, or another owner has taken over, so unflushed writes may be lost. Open the copy
 *   again to recover its durable state.
 * - `COD_READ_ONLY`: the file, the file system or the device was opened for reading only.
 * - `COD_NOT_RUNNING`: no process on this machine owns the target, or its owner does not answer.
 * - `COD_UNSUPPORTED`: the image's format or the browser cannot be used as it is. Or the file system, the format of the
 *   metadata or the other side cannot do what was asked.
 * - `COD_INCOMPLETE`: blocks are missing, so the metadata is still needed.
 * - `COD_BUG`: the WebAssembly core trapped. This is a defect of the package.
 */
export type CodErrorCode =
  | 'COD_NOT_FOUND'
  | 'COD_SHORT_READ'
  | 'COD_SOURCE_IO'
  | 'COD_SOURCE_CHANGED'
  | 'COD_TARGET_IO'
  | 'COD_NO_SPACE'
  | 'COD_NO_MEMORY'
  | 'COD_EXISTS'
  | 'COD_LOCKED'
  | 'COD_CORRUPT'
  | 'COD_VERSION'
  | 'COD_SIZE_MISMATCH'
  | 'COD_MISMATCH'
  | 'COD_CLOSED'
  | 'COD_POISONED'
  | 'COD_READ_ONLY'
  | 'COD_NOT_RUNNING'
  | 'COD_UNSUPPORTED'
  | 'COD_INCOMPLETE'
  | 'COD_BUG';

/** A {@link CodError} as plain data, without its stack. {@link CodError.fromJSON} builds the error again. */
export interface CodErrorJson {
  /** Always `'CodError'`. */
  name: 'CodError';
  /** As {@link CodError.code}. */
  code: CodErrorCode;
  /** What failed, for people. */
  message: string;
  /** As {@link CodError.details}. */
  details: Readonly<Record<string, unknown>>;
  /** The cause, with its own causes if it is a {@link CodError}. Absent if the error has none. */
  cause?: CodErrorJson | { name: string; message: string };
}

/**
 * An error of this package: what failed, where, and the values involved.
 *
 * @example
 * ```ts
 * import { CodError, isCodError } from 'copyondemand';
 *
 * const error = new CodError('COD_TARGET_IO', 'write disk.raw at offset 512: EIO', { details: { offset: 512 } });
 * const received: unknown = CodError.fromJSON(JSON.parse(JSON.stringify(error)));
 * if (isCodError(received, 'COD_TARGET_IO')) console.log(received.details['offset']); // 512
 * ```
 */
export class CodError extends Error {
  /** Always `'CodError'`. */
  override readonly name = 'CodError';
  /** The kind of failure. Programs should test this, not the message. */
  readonly code: CodErrorCode;
  /** Values that belong to the error. Plain data only, so that they can be cloned and serialized. Default: `{}`. */
  readonly details: Readonly<Record<string, unknown>>;

  /**
   * Makes an error, for example in a `FileSystem` or a `Source` of your own.
   *
   * @param message what failed and where, for people
   * @param options.cause the error that led to this one
   * @param options.details see {@link details}
   */
  constructor(
    code: CodErrorCode,
    message: string,
    options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

  /**
   * Returns the error as plain data. `JSON.stringify` calls it. A cause that is no {@link CodError} keeps only its name
   * and its message.
   */
  toJSON(): CodErrorJson {
    const json: CodErrorJson = { name: this.name, code: this.code, message: this.message, details: this.details };
    if (this.cause instanceof CodError) json.cause = this.cause.toJSON();
    else if (this.cause instanceof Error) json.cause = { name: this.cause.name, message: this.cause.message };
    else if (this.cause !== undefined) json.cause = { name: 'Error', message: String(this.cause) };
    return json;
  }

  /** Builds the error that {@link toJSON} was called on, without its stack. For the receiver of a message. */
  static fromJSON(json: CodErrorJson): CodError {
    let cause: unknown;
    if (json.cause !== undefined) {
      cause =
        'code' in json.cause
          ? CodError.fromJSON(json.cause)
          : Object.assign(new Error(json.cause.message), { name: json.cause.name });
    }
    return new CodError(json.code, json.message, { details: json.details, ...(cause === undefined ? {} : { cause }) });
  }
}

/**
 * Returns whether `error` is a {@link CodError}, and has `code` if one is given. Works across copies of this package.
 *
 * @param code default: any code
 * @example
 * ```ts
 * import { isCodError } from 'copyondemand';
 * import { fileSource } from 'copyondemand/node';
 *
 * try {
 *   await fileSource('missing.raw');
 * } catch (error) {
 *   if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
 *   console.log(error.details['path']); // missing.raw
 * }
 * ```
 */
export function isCodError(error: unknown, code?: CodErrorCode): error is CodError {
  return (
    error instanceof Error &&
    error.name === 'CodError' &&
    'code' in error &&
    (code === undefined || error.code === code)
  );
}

/**
 * Returns the error for an allocation that failed. Only for lengths of our own: a caller's wrong argument stays a
 * `RangeError`.
 *
 * @param what what needed the memory
 */
export function outOfMemory(what: string, cause?: unknown): CodError {
  return new CodError('COD_NO_MEMORY', `no memory for ${what}`, { cause });
}
