/** Explains errors to a user who does not know the library. */

import { CodError, type CodErrorCode, isCodError } from '../browser.ts';

export interface Problem {
  readonly title: string;
  readonly text: string;
  /** The error's own message, if `text` does not contain it. */
  readonly detail?: string;
  /**
   * What may help, best first. `again`: open the copy once more. `anew`: remove the copy and begin a new one. `look`:
   * look into the image without a copy. `here`: open the copy without its source. `download`: save the copy as a file.
   */
  readonly remedies: readonly Remedy[];
}

export type Remedy = 'again' | 'anew' | 'look' | 'here' | 'download';

const BEGIN_ANEW =
  'A mix of two versions is useless, so the copy has stopped. Start over to copy the new version; ' +
  'the old copy and your writes are then removed. ' +
  'If the old version returns, try again: the copy resumes with your writes.';

const PROBLEMS: Readonly<
  Partial<Record<CodErrorCode, Omit<Problem, 'text' | 'detail'> & { readonly advice?: string }>>
> = {
  COD_NOT_FOUND: { title: 'The image does not exist', remedies: ['again'] },
  COD_SOURCE_IO: {
    title: 'The image cannot be read',
    advice: 'The copied part is kept.',
    remedies: ['again'],
  },
  COD_SHORT_READ: { title: 'The image is shorter than it was', remedies: ['anew'] },
  COD_SOURCE_CHANGED: {
    title: 'The image has changed at its source',
    advice: BEGIN_ANEW,
    remedies: ['anew', 'again'],
  },
  COD_SIZE_MISMATCH: {
    title: 'The size of the image has changed',
    advice: BEGIN_ANEW,
    remedies: ['anew', 'again'],
  },
  COD_NO_SPACE: {
    title: 'There is not enough space in this browser',
    advice:
      'Free disk space, remove another copy, or let this page store data if the browser asks. Then try again. ' +
      'A private window has little space.',
    remedies: ['again', 'look'],
  },
  COD_NO_MEMORY: {
    title: 'There is not enough memory',
    advice: 'Close other tabs or programs. Then try again.',
    remedies: ['again'],
  },
  COD_LOCKED: {
    title: 'Another tab has this copy open',
    advice: 'Close it there and try again.',
    remedies: ['again'],
  },
  COD_EXISTS: { title: 'A file of this name exists and is not a copy of this image', remedies: ['anew'] },
  COD_CORRUPT: {
    title: 'The metadata of this copy is damaged',
    advice: 'The copy cannot be resumed. Start over.',
    remedies: ['anew'],
  },
  COD_VERSION: { title: 'A newer version of this page made this copy', remedies: ['anew'] },
  COD_TARGET_IO: { title: 'The browser’s storage reports an error', remedies: ['again', 'look'] },
  COD_UNSUPPORTED: { title: 'The image cannot be read here', remedies: ['again'] },
  COD_POISONED: {
    title: 'The browser’s storage has failed',
    advice: 'Open the copy again. Flushed writes are kept.',
    remedies: ['again'],
  },
};

/** Codes whose cause is the source, so that a copy can be used all the same. */
const SOURCE_CODES: ReadonlySet<CodErrorCode> = new Set([
  'COD_NOT_FOUND',
  'COD_SOURCE_IO',
  'COD_SHORT_READ',
  'COD_SOURCE_CHANGED',
  'COD_SIZE_MISMATCH',
  'COD_UNSUPPORTED',
]);

/** @param options.isKept whether this browser has a copy of the image. Default: false. */
export function explain(error: unknown, { isKept = false }: { isKept?: boolean } = {}): Problem {
  const problem = explained(error);
  if (!isKept || !isCodError(error) || !SOURCE_CODES.has(error.code)) return problem;
  return { ...problem, remedies: [...problem.remedies, 'here', 'download'] };
}

function explained(error: unknown): Problem {
  const message = error instanceof Error ? error.message : String(error);
  if (!isCodError(error)) return { title: 'The operation failed', text: sentence(message), remedies: ['again'] };
  if (message.includes('CORS')) {
    return {
      title: 'The server does not allow this page to read the image',
      text: `${sentence(message)} If the server is not yours, download the image and drop the file here.`,
      remedies: ['again'],
    };
  }
  if (error.code === 'COD_SIZE_MISMATCH' && error.message.includes('(0 bytes)'))
    return { title: 'The image is empty', text: 'It has 0 bytes: there is nothing to copy.', remedies: ['again'] };
  const { format, remedy } = error.details;
  if (typeof format === 'string' && typeof remedy === 'string')
    return { title: 'The file is not a disk', text: sentence(`It is ${format}: ${remedy}`), remedies: ['again'] };
  const { title, advice, remedies } = PROBLEMS[error.code] ?? {
    title: 'The operation failed',
    remedies: ['again'] as const,
  };
  return advice === undefined
    ? { title, text: sentence(message), remedies }
    : { title, text: advice, detail: sentence(message), remedies };
}

/** Explains why the copy waits. It continues by itself. */
export function explainWait({ code, message }: CodError): { title: string; text: string } {
  if (code === 'COD_NO_SPACE')
    return { title: 'There is not enough space in this browser.', text: `${PROBLEMS.COD_NO_SPACE?.advice}` };
  // The device reports the text of an error only.
  const title = /\b(HTTP|status) \d{3}\b/i.test(message)
    ? 'The server answers with an error.'
    : 'The server does not answer.';
  return { title, text: 'The copied part of the disk can be used meanwhile, and the copy continues by itself.' };
}

/** Returns the error of a device over an image without bytes. */
export function emptyImage(): CodError {
  return new CodError('COD_SIZE_MISMATCH', 'the source is empty (0 bytes): there is nothing to copy');
}

/** Explains an error in a few words, for a view that shows the outcome of one of many reads. */
export function brief(error: unknown): string {
  return isCodError(error, 'COD_SOURCE_CHANGED') ? sentence(explain(error).title) : (error as Error).message;
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
