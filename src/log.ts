/**
 * The write-intent log and block map on their own, for other storage engines. See docs/LOG.md.
 *
 * @packageDocumentation
 */

import { openLog, recoverLog } from './log/intent-log.ts';
import type { IntentLog, OpenIntentLogOptions, RecoveredIntentLog, RecoverIntentLogOptions } from './log/types.ts';
import { systemEnvironment } from './platform/environment.ts';

export type { BlockRange, BlockRun, BlockView, DirtyView } from './core/copy-state.ts';
export { CodError, type CodErrorCode, type CodErrorJson, isCodError } from './errors.ts';
export type { File, FileSystem, Lease } from './fs/file-system.ts';
export type {
  IntentLog,
  LogStorage,
  OpenIntentLogOptions,
  RecoveredIntentLog,
  RecoverIntentLogOptions,
  Transaction,
} from './log/types.ts';
export type { Clock, Environment } from './platform/clock.ts';

/**
 * Opens the log of a storage that exists with its full size: makes the log, or recovers it after any crash.
 *
 * @throws {@link CodError} COD_LOCKED when the log has an owner; COD_SIZE_MISMATCH or COD_SOURCE_CHANGED when the log
 *   belongs to another storage; COD_CORRUPT; COD_VERSION; COD_POISONED when a sync failed; the errors of the file
 *   system. `TypeError`, `RangeError` for wrong options.
 *
 * @example
 * const log = await openIntentLog({ fileSystem, name: 'store', size, storage: file });
 * const transaction = log.begin();
 * await transaction.intend(offset, bytes);
 * await file.write(bytes, offset);
 * await log.commit(transaction);
 * await log.flush();
 */
export function openIntentLog(options: OpenIntentLogOptions): Promise<IntentLog> {
  return openLog(options.environment ?? systemEnvironment, options);
}

/**
 * Recovers a log before its storage is opened, for an engine that makes its storage itself. Takes the ownership, and
 * changes nothing on disk.
 *
 * Next, call {@link RecoveredIntentLog.prepare}, make or open the storage, then call {@link RecoveredIntentLog.begin}.
 *
 * @throws {@link CodError} COD_LOCKED when the log has an owner; COD_CORRUPT; COD_VERSION; the errors of the file
 *   system. `TypeError`, `RangeError` for wrong options.
 *
 * @example
 * const recovered = await recoverIntentLog({ fileSystem, name: 'store', size });
 * await recovered.prepare();
 * const file = await fileSystem.open('store', { create: true });
 * await file.truncate(size);
 * const log = await recovered.begin(file);
 */
export function recoverIntentLog(options: RecoverIntentLogOptions): Promise<RecoveredIntentLog> {
  return recoverLog(options.environment ?? systemEnvironment, options);
}
