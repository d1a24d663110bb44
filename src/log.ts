/**
 * The write-intent log and block map on their own, for other storage engines. See docs/LOG.md.
 *
 * @packageDocumentation
 */

import { type ExportedLog, type ExportFormat1Options, exportFormat1In } from './log/export.ts';
import { openLog, recoverLog } from './log/intent-log.ts';
import type { IntentLog, OpenIntentLogOptions, RecoveredIntentLog, RecoverIntentLogOptions } from './log/types.ts';
import { systemEnvironment } from './platform/environment.ts';

export type { BlockRange } from './core/runs.ts';
export type { BlockRun, BlockView, DirtyView, ModifiedView } from './core/views.ts';
export { CodError, type CodErrorCode, type CodErrorJson, isCodError } from './errors.ts';
export type {
  File,
  FileSystem,
  Image,
  Lease,
  LeaseOptions,
  LeaseOwner,
  NameWatch,
  OpenOptions,
} from './fs/file-system.ts';
export type { ExportedLog, ExportFormat1Options } from './log/export.ts';
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
 * Opens the log of a storage that exists with its full size: makes the log, or recovers it after any crash. The
 * recovered state is durable when the promise resolves.
 *
 * @throws {@link CodError} COD_LOCKED when the log has an owner; COD_EXISTS when a file that is not ours has the name
 *   of one of the log's files, and it stays as it is; COD_SIZE_MISMATCH or COD_SOURCE_CHANGED when the log belongs to
 *   another storage; COD_CORRUPT when the log is damaged; COD_VERSION; COD_POISONED when a sync failed; COD_NOT_FOUND,
 *   COD_NO_SPACE or COD_TARGET_IO when the file system fails; COD_NO_MEMORY.
 * @throws `TypeError` or `RangeError` when an option is wrong.
 * @example
 * ```ts
 * import { openIntentLog } from 'copyondemand/log';
 * import { nodeFileSystem } from 'copyondemand/node';
 *
 * const size = 2 ** 20;
 * const fileSystem = nodeFileSystem();
 * const file = await fileSystem.open('store', { create: true });
 * await file.truncate(size);
 * const log = await openIntentLog({ fileSystem, name: 'store', size, storage: file });
 *
 * const bytes = new Uint8Array(4096).fill(7);
 * const transaction = log.begin();
 * await transaction.intend(8192, bytes);
 * await file.write(bytes, 8192);
 * await log.commit(transaction); // the write survives the death of the process
 * await log.flush(); // the write survives power loss
 * console.log(log.blocks.has(2)); // true
 * await log.close();
 * await file.close();
 * ```
 */
export function openIntentLog(options: OpenIntentLogOptions): Promise<IntentLog> {
  return openLog(options.environment ?? systemEnvironment, options);
}

/**
 * Recovers a log before its storage is opened, for an engine that makes its storage itself. Takes the ownership, and
 * changes no metadata file.
 *
 * Next, call {@link RecoveredIntentLog.prepare}, make or open the storage, then call {@link RecoveredIntentLog.begin}.
 *
 * @throws {@link CodError} COD_LOCKED when the log has an owner; COD_EXISTS as {@link openIntentLog}; COD_CORRUPT when
 *   the log is damaged; COD_VERSION; COD_NOT_FOUND, COD_NO_SPACE or COD_TARGET_IO when the file system fails;
 *   COD_NO_MEMORY.
 * @throws `TypeError` or `RangeError` when an option is wrong.
 * @example
 * ```ts
 * import { recoverIntentLog } from 'copyondemand/log';
 * import { nodeFileSystem } from 'copyondemand/node';
 *
 * const size = 2 ** 20;
 * const fileSystem = nodeFileSystem();
 * const recovered = await recoverIntentLog({ fileSystem, name: 'store', size });
 * await recovered.prepare(); // from here on, a storage that exists has a log
 * const file = await fileSystem.open('store', { create: true });
 * await file.truncate(size);
 * const log = await recovered.begin(file);
 * console.log(log.blocks.count, log.blocks.nextUnsynced(0)); // 0 0
 * await log.close();
 * await file.close();
 * ```
 */
export function recoverIntentLog(options: RecoverIntentLogOptions): Promise<RecoveredIntentLog> {
  return recoverLog(options.environment ?? systemEnvironment, options);
}

/**
 * Converts the files of a log that was closed cleanly to format 1, for datto/copyondemand and other programs that read
 * no other. The storage stays as it is.
 *
 * When the promise resolves, only `<name>.bak` is left, durably. A crash leaves the log in one format or the other:
 * repeat the call then. A log that is in format 1 already stays so. Opening the log converts it to format 2 again.
 *
 * Format 1 has no place for the identity of the source's content and for the map of modified blocks: both are lost.
 *
 * @throws {@link CodError} COD_UNSUPPORTED when the log was not closed cleanly, or has another block size than 4096;
 *   COD_LOCKED when it has an owner; COD_NOT_FOUND when there is no log; COD_CORRUPT when it is damaged; COD_EXISTS
 *   when a file that is not ours has the name of one of its files; COD_VERSION. Nothing has changed then.
 * @throws {@link CodError} COD_NO_SPACE, COD_POISONED or COD_TARGET_IO when the file system fails; COD_NO_MEMORY.
 * @throws `TypeError` when `name` is no file name.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { bytesSource, openDevice } from 'copyondemand';
 * import { exportFormat1 } from 'copyondemand/log';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 *
 * const fileSystem = memfsFileSystem();
 * const source = bytesSource(new Uint8Array(2 ** 20), { identity: 'version 7' });
 * const device = await openDevice({ source, fileSystem, target: 'disk.raw', hydrate: false });
 * await device.write(new Uint8Array(8192).fill(1), 4096);
 * await device.close();
 *
 * const { syncedBlocks, identity } = await exportFormat1({ fileSystem, name: 'disk.raw' });
 * console.log(syncedBlocks, identity); // 2 version 7
 * ```
 */
export function exportFormat1(options: ExportFormat1Options): Promise<ExportedLog> {
  return exportFormat1In(options.environment ?? systemEnvironment, options);
}
