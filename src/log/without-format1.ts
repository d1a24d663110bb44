/**
 * What the page's worker has in the place of format1.ts (scripts/lib/page-bundles.mjs): only the Go program writes
 * format 1, and its reader would be 1.4 kB of what each page loads.
 */

import { CodError } from '../errors.ts';
import type * as format1 from './format1.ts';

/** @throws {@link CodError} COD_UNSUPPORTED */
export const recoverFormat1: typeof format1.recoverFormat1 = async () => {
  const message = 'a page cannot read metadata of format 1: open the copy once with the command, which converts it';
  throw new CodError('COD_UNSUPPORTED', message);
};
