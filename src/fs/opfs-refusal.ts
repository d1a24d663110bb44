/** Why there is no browser storage (OPFS). For pages and workers. */

import { CodError } from '../errors.ts';

/** Returns the error for storage that is missing, or that the browser refuses with `cause`. */
export function noStorage(cause?: unknown): CodError {
  let why = 'the browser refuses it: allow the data of this site, and use no private window';
  if (globalThis.isSecureContext === undefined) why = 'call this in a browser, not on a server';
  else if (!isSecureContext) why = 'open the page over https or from localhost';
  else if (origin === 'null') why = NO_ORIGIN;
  else if (cause === undefined) why = 'use a newer browser';
  return new CodError('COD_UNSUPPORTED', `there is no browser storage (OPFS): ${why}`, { cause });
}

/** The remedy for sandboxed frames, and for pages that are opened as files. */
export const NO_ORIGIN = 'the page has no origin: serve it, and add allow-same-origin to the sandbox of its frame';
