/** What users of the log hold: its options, a transaction, the log, and a log that was recovered. */

import type { BlockView, DirtyView } from '../core/copy-state.ts';
import type { FileSystem } from '../fs/file-system.ts';
import type { Environment } from '../platform/clock.ts';

/** The engine's own storage. A `File` is one. */
export interface LogStorage {
  /** Fills `into` with what the storage holds from `offset` on. */
  read(into: Uint8Array, offset: number): Promise<void>;
  /** Makes every write to the storage that has returned durable. If it rejects, the log is poisoned. */
  sync(): Promise<void>;
}

/** Where a log is, and which storage it describes. */
export interface RecoverIntentLogOptions {
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
  /** A commit becomes durable without a flush after this many milliseconds at the latest. Default: 10,000. */
  readonly checkpointIntervalMs?: number;
  /** Names the content that unsynced blocks come from: at most 65,536 bytes of UTF-8. */
  readonly identity?: string;
  /** Default: the system's clock and randomness. */
  readonly environment?: Environment;
}

/** How a log is opened. */
export interface OpenIntentLogOptions extends RecoverIntentLogOptions {
  /** The storage. It must exist with its full size. */
  readonly storage: LogStorage;
}

/**
 * Writes that are committed together. A transaction that is never committed records nothing and needs no end.
 *
 * A transaction is not atomic: after a crash before its commit resolved, any part of it may be recorded.
 */
export interface Transaction {
  /**
   * Announces a write. Nothing is recorded yet.
   *
   * @param offset bytes from the beginning of the storage
   * @param bytes what the caller is about to write; they must not change until the write has returned
   * @returns resolves when the caller may write the bytes to its storage
   * @throws `RangeError` if the range is outside the storage; `TypeError` after the commit.
   */
  intend(offset: number, bytes: Uint8Array): Promise<void>;
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
  /** Begins a transaction. */
  begin(): Transaction;
  /**
   * Records the writes that a transaction announced. All of them must have returned. No other write of the same bytes
   * may be in flight. If it rejects, begin another transaction to try again.
   *
   * @returns resolves when the writes survive the death of the process. On a file system without `bootId` they survive
   * it only after {@link flush}.
   * @throws {@link CodError} COD_NO_SPACE or COD_TARGET_IO, and nothing was recorded; COD_POISONED, COD_CLOSED.
   * `TypeError` if the transaction is of another log or was committed before.
   */
  commit(transaction: Transaction): Promise<void>;
  /**
   * Makes every commit that resolved before the call survive a power cut: syncs the storage, then the log.
   *
   * @throws {@link CodError} COD_POISONED if a sync failed; COD_NO_SPACE, COD_TARGET_IO, COD_CLOSED.
   */
  flush(): Promise<void>;
  /**
   * As {@link flush}. In addition it writes the present state as a checkpoint and begins an empty log.
   *
   * @throws {@link CodError} as {@link flush}.
   */
  checkpoint(): Promise<void>;
  /**
   * Waits for commits in flight, takes a checkpoint if anything changed, and closes the files. Idempotent. A poisoned
   * log closes without a checkpoint.
   */
  close(): Promise<void>;
  /**
   * Closes the log of a complete storage and removes its files. If it fails in any other way than COD_INCOMPLETE, the
   * log is closed and the next start finds what was durable.
   *
   * @throws {@link CodError} COD_INCOMPLETE if blocks are missing; COD_POISONED if a sync failed; COD_NO_SPACE,
   * COD_TARGET_IO, COD_CLOSED.
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
  /**
   * Makes the log durable. Call it before the storage is made: then a storage that exists always has a log.
   *
   * @throws {@link CodError} COD_POISONED if a sync failed; COD_NO_SPACE, COD_TARGET_IO. Call {@link close} then.
   */
  prepare(): Promise<void>;
  /**
   * Begins to log, after {@link prepare}. The storage must exist with its full size. What was recovered is durable when
   * it resolves.
   *
   * @throws {@link CodError} as {@link prepare}. Call {@link close} then.
   */
  begin(storage: LogStorage): Promise<IntentLog>;
  /** Gives up the log and its ownership. After {@link begin}, closes the log that has begun. Idempotent. */
  close(): Promise<void>;
}
