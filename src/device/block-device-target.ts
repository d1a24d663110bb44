/** Block devices as targets. The page's worker is built without this file (scripts/lib/page-bundles.mjs). */

import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { RecoveredLog } from '../log/intent-log.ts';
import type { Source } from '../sources/source.ts';

/**
 * Gets ready for a new copy on a block device.
 * @throws {@link CodError} COD_SIZE_MISMATCH if it is too small; COD_EXISTS if it seems to hold something
 */
export async function prepareDevice(
  file: File,
  log: RecoveredLog,
  source: Source,
  { target, overwrite }: { readonly target: string; readonly overwrite?: boolean | undefined },
): Promise<File> {
  try {
    const bytes = await file.size();
    if (bytes < log.size) {
      const message = `${target} has ${bytes} bytes, but the image has ${log.size}: use a larger device`;
      throw new CodError('COD_SIZE_MISMATCH', message, { details: { target, bytes, size: log.size } });
    }
    const found = overwrite ? undefined : await file.deviceContents!(source);
    if (found !== undefined) {
      const message = `${target} seems to hold ${found}: replace it with \`overwrite\` (\`--overwrite\`)`;
      const { size, identity } = log;
      throw new CodError('COD_EXISTS', message, { details: { target, isImage: true, size, identity } });
    }
    await log.prepare();
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}
