/** Everything that can go wrong, as one class with a stable code. Codes are API, messages are not. */

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

/** What a {@link CodError} looks like as JSON; enough to build it again elsewhere. */
export interface CodErrorJson {
  name: 'CodError';
  code: CodErrorCode;
  message: string;
  details: Readonly<Record<string, unknown>>;
  cause?: CodErrorJson | { name: string; message: string };
}

/** An error of this package: what happened, where, and the numbers that belong to it. */
export class CodError extends Error {
  override readonly name = 'CodError';
  readonly code: CodErrorCode;
  /** Numbers and names that belong to the error; plain data only, so that it can be cloned and serialized. */
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

  /** The error that {@link toJSON} was called on, less its stack: for the far side of a message channel. */
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

/** Whether `error` is a {@link CodError}, of the given code if one is named. Works across copies of this package. */
export function isCodError(error: unknown, code?: CodErrorCode): error is CodError {
  return (
    error instanceof Error &&
    error.name === 'CodError' &&
    'code' in error &&
    (code === undefined || error.code === code)
  );
}
