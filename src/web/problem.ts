/** What went wrong, as somebody who only wants to see a disk needs to hear it. */

import { type CodErrorCode, isCodError } from '../browser.ts';

export interface Problem {
  readonly title: string;
  readonly text: string;
  /** What may help: asking again, or forgetting this copy and beginning anew. */
  readonly remedy: 'again' | 'anew' | undefined;
}

const PROBLEMS: Readonly<Partial<Record<CodErrorCode, Omit<Problem, 'text'> & { readonly advice?: string }>>> = {
  COD_NOT_FOUND: { title: 'There is no such image', remedy: 'again' },
  COD_SOURCE_IO: { title: 'The image cannot be read', advice: 'What has arrived is kept.', remedy: 'again' },
  COD_SHORT_READ: { title: 'The image is shorter than it was', remedy: 'anew' },
  COD_SOURCE_CHANGED: {
    title: 'The image has changed at its source',
    advice:
      'A copy of two versions would be worth nothing, so it stops here. Begin anew to get the present version; what was copied and written is forgotten then.',
    remedy: 'anew',
  },
  COD_SIZE_MISMATCH: { title: 'The image has another size than it had', remedy: 'anew' },
  COD_NO_SPACE: {
    title: 'There is not enough room in this browser',
    advice:
      'Free some space on the disk, or forget another copy, and try again. A private window keeps everything in memory and has little room.',
    remedy: 'again',
  },
  COD_LOCKED: { title: 'Another tab has this copy open', advice: 'Close it there, and try again.', remedy: 'again' },
  COD_EXISTS: { title: 'There is a file of this name that is no copy of this image', remedy: 'anew' },
  COD_CORRUPT: { title: 'What is kept of this copy is damaged', advice: 'It is not believed. Begin anew.', remedy: 'anew' },
  COD_VERSION: { title: 'This copy was made by a later version', remedy: 'anew' },
  COD_TARGET_IO: { title: 'The browser’s storage does not work', remedy: 'again' },
  COD_POISONED: { title: 'The browser’s storage has failed', advice: 'Open the copy again; what was flushed is there.', remedy: 'again' },
};

export function explain(error: unknown): Problem {
  const message = error instanceof Error ? error.message : String(error);
  if (!isCodError(error)) return { title: 'This does not work', text: sentence(message), remedy: 'again' };
  if (message.includes('CORS')) {
    return {
      title: 'The server does not let this page read the image',
      text: `${sentence(message)} If the server is not yours, download the image and drop the file here.`,
      remedy: 'again',
    };
  }
  const { title, advice, remedy } = PROBLEMS[error.code] ?? { title: 'This does not work', remedy: 'again' as const };
  return { title, text: [sentence(message), advice].filter((part) => part !== undefined).join(' '), remedy };
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
