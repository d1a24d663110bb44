/** Files that were opened for reading only. */

import { CodError } from '../errors.ts';
import type { InlineFile } from '../fs/inline-file.ts';

/** Returns `file` without its calls that change it. */
export function forReading(file: InlineFile, name: string): InlineFile {
  const refuse = async (): Promise<never> => {
    // COD_CLOSED first.
    await file.size();
    throw new CodError('COD_READ_ONLY', `${name} was opened for reading only`, { details: { name } });
  };
  return {
    size: () => file.size(),
    read: (into, offset) => file.read(into, offset),
    ...(file.submitRead && { submitRead: (into: Uint8Array, offset: number) => file.submitRead!(into, offset) }),
    write: refuse,
    truncate: refuse,
    sync: async () => void (await file.size()),
    close: () => file.close(),
  };
}
