/** Explains errors to a user who does not know the library. */

import { type CodErrorCode, isCodError } from '../browser.ts';

export interface Problem {
  readonly title: string;
  readonly text: string;
  /** The error's own message, if `text` does not contain it. */
  readonly detail?: string;
  /** What may help, best first. `again`: open the copy once more. `anew`: remove the copy and begin a new one. */
  readonly remedies: readonly Remedy[];
}

export type Remedy = 'again' | 'anew';

const BEGIN_ANEW =
  'A copy of two versions would be worth nothing, so it stops here. Begin anew to get the present version; what was copied and written is forgotten then. If the former version comes back, try again: the copy goes on, with all that was written.';

const PROBLEMS: Readonly<
  Partial<Record<CodErrorCode, Omit<Problem, 'text' | 'detail'> & { readonly advice?: string }>>
> = {
  COD_NOT_FOUND: { title: 'There is no such image', remedies: ['again'] },
  COD_SOURCE_IO: {
    title: 'The image cannot be read',
    advice: 'What has arrived is kept.',
    remedies: ['again'],
  },
  COD_SHORT_READ: { title: 'The image is shorter than it was', remedies: ['anew'] },
  COD_SOURCE_CHANGED: {
    title: 'The image has changed at its source',
    advice: BEGIN_ANEW,
    remedies: ['anew', 'again'],
  },
  COD_SIZE_MISMATCH: {
    title: 'The image has another size than it had',
    advice: BEGIN_ANEW,
    remedies: ['anew', 'again'],
  },
  COD_NO_SPACE: {
    title: 'There is not enough room in this browser',
    advice:
      'Free some space on the disk, forget another copy, or let the browser keep the data of this page if it asks, and try again. A private window keeps everything in memory and has little room.',
    remedies: ['again'],
  },
  COD_LOCKED: {
    title: 'Another tab has this copy open',
    advice: 'Close it there, and try again.',
    remedies: ['again'],
  },
  COD_EXISTS: { title: 'There is a file of this name that is no copy of this image', remedies: ['anew'] },
  COD_CORRUPT: {
    title: 'What is kept of this copy is damaged',
    advice: 'It is not believed. Begin anew.',
    remedies: ['anew'],
  },
  COD_VERSION: { title: 'This copy was made by a later version', remedies: ['anew'] },
  COD_TARGET_IO: { title: 'The browser’s storage does not work', remedies: ['again'] },
  COD_POISONED: {
    title: 'The browser’s storage has failed',
    advice: 'Open the copy again; what was flushed is there.',
    remedies: ['again'],
  },
};

export function explain(error: unknown): Problem {
  const message = error instanceof Error ? error.message : String(error);
  if (!isCodError(error)) return { title: 'This does not work', text: sentence(message), remedies: ['again'] };
  if (message.includes('CORS')) {
    return {
      title: 'The server does not let this page read the image',
      text: `${sentence(message)} If the server is not yours, download the image and drop the file here.`,
      remedies: ['again'],
    };
  }
  const { title, advice, remedies } = PROBLEMS[error.code] ?? {
    title: 'This does not work',
    remedies: ['again'] as const,
  };
  return advice === undefined
    ? { title, text: sentence(message), remedies }
    : { title, text: advice, detail: sentence(message), remedies };
}

/** Explains an error in a few words, for a view that shows the outcome of one of many reads. */
export function brief(error: unknown): string {
  return isCodError(error, 'COD_SOURCE_CHANGED') ? sentence(explain(error).title) : (error as Error).message;
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
