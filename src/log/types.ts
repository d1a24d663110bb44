/** What users of the log hold: its options, a transaction, the log, and a log that was recovered. */

import type { BlockView, DirtyView, ModifiedView } from '../core/views.ts';
import type { FileSystem } from '../fs/file-system.ts';
import type { Environment } from '../platform/clock.ts';

/** The engine's own storage. A `File` is one. */
export interface LogStorage {
  /** Fills `into` with the storage's bytes from `offset` on. */
  read(into: Uint8Array, offset: number): Promise<void>;
  /** Makes every write to the storage that has returned durable. If it rejects, the log is poisoned. */
  sync(): Promise<void>;
  /**
   * Writes all of `from` at `offset`. Called when the log begins, with bytes that the storage holds already: after a
   * failed sync, a page cache may hold bytes that no disk has. Without it such bytes may not be durable after a flush.
   */
  write?(from: Uint8Array, offset: number): Promise<void>;
}

/** Options of `recoverIntentLog`: where a log is, and which storage it describes. */
export interface RecoverIntentLogOptions {
  /** Where the log's files are stored. */
  readonly fileSystem: FileSystem;
  /** Prefix of the log's files: `<name>.bak`, `<name>.bak.1`, `<name>.wil`, `<name>.wil.1`. */
  readonly name: string;
  /** Bytes of the storage, 1 or more. */
  readonly size: number;
  /**
   * Bytes of a block: a power of two from 4096 to 2^26. A log that exists keeps the block size that it was made with.
   * Default: 4096.
   */
  readonly blockSize?: number;
  /**
   * Milliseconds, above 0; Infinity: never. The log makes a commit durable by itself this long after the first commit
   * that is not durable. Default: 10,000.
   */
  readonly checkpointIntervalMs?: number;
  /** Names the content that unsynced blocks come from: at most 65,536 bytes of UTF-8. Default: none. */
  readonly identity?: string;
  /**
   * Replaces an owner on another machine when its heartbeat has stood still for 10 s, instead of 30 s. Default: false.
   */
  readonly takeOver?: boolean;
  /** Aborts opening; has no effect on the opened log. */
  readonly signal?: AbortSignal;
  /** Clock and randomness. Default: the machine's. */
  readonly environment?: Environment;
  /**
   * Reads the storage. Commits that were not flushed count where the storage reads as they say. A read that rejects
   * with COD_NOT_FOUND or COD_SHORT_READ proves nothing. Default: commits that were not flushed do not count.
   */
  readonly storage?: Pick<LogStorage, 'read'>;
}

/** Options of `openIntentLog`. */
export interface OpenIntentLogOptions extends RecoverIntentLogOptions {
  /** The storage. It must exist with its full size. It belongs to the caller: closing the log does not close it. */
  readonly storage: LogStorage;
}

/**
 * Writes that are committed together. A transaction that is never committed records nothing and needs no end.
 *
 * A transaction is not atomic: after a crash before its commit resolved, any part of it may be recorded.
 */
export interface Transaction {
  /**
   * Announces a write. Resolves when the caller may write the bytes to its storage. Nothing is recorded yet. Reads the
   * storage if the write begins or ends within a cell, which is 4096 aligned bytes. No other write to the same cells
   * may be in flight from this call until the commit has resolved, except returned writes of this transaction.
   *
   * @param offset bytes from the beginning of the storage
   * @param bytes the bytes of the write, which must not change until the write has returned
   * @throws `RangeError` when the range is outside the storage; `TypeError` after the commit.
   */
  intend(offset: number, bytes: Uint8Array): Promise<void>;
  /**
   * As {@link intend}, of bytes that are a copy of other content, such as a source. Blocks that hold nothing else are
   * not modified. Such bytes count once they are flushed: after a crash before that, copy them again. No other write to
   * the same blocks may be in flight from this call until the commit has resolved.
   *
   * @param offset bytes from the beginning of the storage
   * @param bytes as those of {@link intend}
   * @throws as {@link intend}
   */
  fill(offset: number, bytes: Uint8Array): Promise<void>;
}

/** A log in use. Its views are valid until it closes. */
export interface IntentLog extends AsyncDisposable {
  /** Bytes of the storage. */
  readonly size: number;
  /** Bytes of a block. */
  readonly blockSize: number;
  /** The name of the content that unsynced blocks come from, as the log stores it. */
  readonly identity: string | undefined;
  /** The synced blocks: the storage holds all of their bytes. */
  readonly blocks: BlockView;
  /** The dirty parts: the storage holds these bytes of unsynced blocks. */
  readonly dirty: DirtyView;
  /**
   * The blocks that were written since they were copied, and others that a write was about to change. After a power
   * loss a block may be missing whose first write after its copy was not flushed.
   */
  readonly modified: ModifiedView;
  /** Begins a transaction. Any number of them may be open. */
  begin(): Transaction;
  /**
   * Records the writes that a transaction announced. All of them must have returned. If it rejects, begin another
   * transaction to try again.
   *
   * Resolves when the writes survive the death of the process.
   *
   * @throws {@link CodError} COD_NO_SPACE, COD_NO_MEMORY or COD_TARGET_IO, and nothing was recorded; COD_POISONED;
   *   COD_CLOSED.
   * @throws `TypeError` when the transaction is of another log or was committed before.
   */
  commit(transaction: Transaction): Promise<void>;
  /**
   * Makes every commit that resolved before the call survive power loss: syncs the storage, then the log.
   *
   * @throws {@link CodError} COD_POISONED when a sync failed; COD_NO_SPACE; COD_TARGET_IO; COD_CLOSED.
   */
  flush(): Promise<void>;
  /**
   * As {@link flush}. In addition it writes the present state as a checkpoint and begins an empty log.
   *
   * @throws as {@link flush}.
   */
  checkpoint(): Promise<void>;
  /**
   * Waits for commits in flight, takes a checkpoint if anything changed, and closes the files. Every commit is durable
   * when the promise resolves. Idempotent. A poisoned log closes without a checkpoint.
   *
   * @throws {@link CodError} COD_POISONED, COD_NO_SPACE or COD_TARGET_IO when the checkpoint fails. The log is closed
   *   all the same.
   */
  close(): Promise<void>;
  /**
   * Closes the log of a complete storage and removes its files. Every commit is durable when the promise resolves.
   * After any failure but COD_INCOMPLETE the log is closed, and the next start finds the durable state.
   *
   * @throws {@link CodError} COD_INCOMPLETE when blocks are missing; COD_POISONED when a sync failed; COD_NO_SPACE;
   *   COD_TARGET_IO; COD_CLOSED.
   */
  remove(): Promise<void>;
}

/** A log that was recovered, or that is about to be made. Nothing on disk has changed yet. */
export interface RecoveredIntentLog {
  /** Whether there was no log. */
  readonly isNew: boolean;
  /** Bytes of the storage, as the log says. The engine compares them with its own. */
  readonly size: number;
  /** Bytes of a block, as the log says. */
  readonly blockSize: number;
  /** The identity that the log stores. The engine compares it with its own: {@link begin} replaces it. */
  readonly identity: string | undefined;
  /** The synced blocks. */
  readonly blocks: BlockView;
  /** The dirty parts of the other blocks. */
  readonly dirty: DirtyView;
  /** The blocks that were written since they were copied. */
  readonly modified: ModifiedView;
  /**
   * Makes the log durable. Call it before the storage is made: then a storage that exists always has a log.
   *
   * @throws {@link CodError} COD_EXISTS when another program made one of the files meanwhile; COD_POISONED when a sync
   *   failed; COD_NO_SPACE; COD_TARGET_IO. Call {@link close} then.
   */
  prepare(): Promise<void>;
  /**
   * Begins to log, after {@link prepare}. The storage must exist with its full size. The recovered state is durable
   * when the promise resolves.
   *
   * @throws as {@link prepare}. Call {@link close} then.
   */
  begin(storage: LogStorage): Promise<IntentLog>;
  /**
   * Gives up the log and its ownership. After {@link begin}, closes the log that has begun. Idempotent.
   *
   * @throws {@link CodError} as `close` of the log that has begun; COD_TARGET_IO.
   */
  close(): Promise<void>;
}
