/** Reads metadata that another owner may change meanwhile (docs/OWNERSHIP.md, "A reading of a copy in use"). */

import { CodError, isCodError } from '../errors.ts';
import type { FileSystem } from '../fs/file-system.ts';
import { ALL_SLOTS, beginningOf, Slots } from './slots.ts';

/** Attempts to read what an owner keeps changing. */
const MAX_LOOKS = 50;

/**
 * Returns what `read` returns, once no header has changed meanwhile, or what `otherwise` returns before that. An error
 * of `read` counts if two readings of the same headers end with it.
 * @throws {@link CodError} COD_LOCKED if the headers change each time
 */
export async function readUndisturbed<T>(
  fileSystem: FileSystem,
  target: string,
  read: () => Promise<T>,
  otherwise?: () => Promise<T | undefined>,
): Promise<T> {
  let verdict: string | undefined;
  for (let looks = 0; looks < MAX_LOOKS; looks++) {
    const before = await headersOf(fileSystem, target);
    const [outcome] = await Promise.allSettled([read()]);
    if ((await headersOf(fileSystem, target)) === before) {
      if (outcome.status === 'fulfilled') return outcome.value;
      // An owner may have appended to a log meanwhile. Files that stand still show the same damage again.
      const again = `${outcome.reason} ${before}`;
      if (again === verdict || isCodError(outcome.reason, 'COD_LOCKED')) throw outcome.reason;
      verdict = again;
      continue;
    }
    const found = await otherwise?.();
    if (found !== undefined) return found;
  }
  throw new CodError('COD_LOCKED', `${target}: its owner changes the metadata faster than it can be read: try again`, {
    details: { target },
  });
}

/** The headers of all metadata files, to be compared: each step that voids what was read before changes one. */
async function headersOf(fileSystem: FileSystem, target: string): Promise<string> {
  const slots = new Slots(fileSystem, target, { readOnly: true });
  try {
    const headers = ALL_SLOTS.map(async ({ kind, slot }) => {
      const file = await slots.find(kind, slot);
      return file === undefined ? 'absent' : (await beginningOf(file)).join();
    });
    // The reading of what cannot be read tells why.
    return (await Promise.allSettled(headers)).map((each) => (each.status === 'fulfilled' ? each.value : '')).join();
  } finally {
    await slots.close();
  }
}
