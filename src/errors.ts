/** The errors of this package: one class with a stable code. Codes are API, messages are not. */

export type CodErrorCode =
  | 'COD_NOT_FOUND'
  | 'COD_SHORT_READ'
  | 'COD_SOURCE_IO'
  | 'COD_SOURCE_CHANGED'
  | 'COD_TARGET_IO'
  | 'COD_NO_SPACE'
  | 'COD_EXISTS'
  | 'COD_LOCKED'
  | 'COD_CORRUPT'
  | 'COD_VERSION'
  | 'COD_SIZE_MISMATCH'
  | 'COD_CLOSED'
  | 'COD_POISONED'
  | 'COD_INCOMPLETE'
  | 'COD_BUG';

/** A {@link CodError} as JSON. {@link CodError.fromJSON} builds the error again elsewhere. */
export interface CodErrorJson {
  name: 'CodError';
  code: CodErrorCode;
  message: string;
  details: Readonly<Record<string, unknown>>;
  cause?: CodErrorJson | { name: string; message: string };
}

/** An error of this package: what failed, where, and the values involved. */
export class CodError extends Error {
  override readonly name = 'CodError';
  readonly code: CodErrorCode;
  /** Values that belong to the error. Plain data only, so that they can be cloned and serialized. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: CodErrorCode,
    message: string,
    options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

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
 */
export function isCodError(error: unknown, code?: CodErrorCode): error is CodError {
  return (
    error instanceof Error &&
    error.name === 'CodError' &&
    'code' in error &&
    (code === undefined || error.code === code)
  );
}
