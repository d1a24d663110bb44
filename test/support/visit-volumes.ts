/** Looks around on a disk, as a user of the page does. */

import { type Bytes, VolumeError } from '../../src/web/volumes/bytes.ts';
import { findVolume, readDisk } from '../../src/web/volumes/disk.ts';
import { type Entry, readFile, type Volume } from '../../src/web/volumes/volume.ts';

const MAX_VISITED = 60;
const MAX_FILE_BYTES = 2 ** 16;

/** Opens some directories and the beginnings of some files on a disk, as a user does. Counts refused entries. */
export async function visit(disk: Bytes): Promise<{ volumes: number; entries: number; refusals: number }> {
  const seen = { volumes: 0, entries: 0, refusals: 0 };
  const attempt = async (look: () => Promise<void>): Promise<void> => {
    try {
      await look();
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
      seen.refusals++;
    }
  };
  const look = async (volume: Volume): Promise<void> => {
    const waiting: Entry[] = [volume.root];
    for (let entry = waiting.shift(); entry !== undefined && seen.entries < MAX_VISITED; entry = waiting.shift()) {
      const current = entry;
      seen.entries++;
      await attempt(async () => {
        if (current.kind === 'directory') waiting.push(...(await volume.list(current)).entries.slice(0, 8));
        else {
          const file = await volume.look(current);
          for await (const _ of readFile(volume, file, { from: 0, to: MAX_FILE_BYTES }, { pieceBytes: 4096 }));
        }
      });
    }
  };
  await attempt(async () => {
    for (const part of (await readDisk(disk)).parts) {
      const found = await findVolume(disk, part);
      if (!('volume' in found)) continue;
      seen.volumes++;
      await look(found.volume);
    }
  });
  return seen;
}
