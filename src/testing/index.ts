/**
 * Tests for storage: the suite that every {@link FileSystem} passes, a file system that crashes, an explorer of
 * crashes, a recorder, and a checker of linearizability. Needs no test runner.
 *
 * @packageDocumentation
 */

export type { CodErrorCode } from '../errors.ts';
export type {
  File,
  FileSystem,
  Image,
  Lease,
  LeaseOptions,
  LeaseOwner,
  NameWatch,
  OpenOptions,
} from '../fs/file-system.ts';
export type { Clock } from '../platform/clock.ts';
export type {
  CrashKind,
  Life,
  PlannedCrash,
  Story,
  StoryFigures,
  StoryOptions,
  StoryPlan,
  Told,
} from './crash-story.ts';
export type { Crash, CrashingFileSystemOptions, FaultOptions, StorageOperation } from './crashes-and-faults.ts';
export { CrashingFileSystem } from './crashing-file-system.ts';
export { CrashFailure, type ExplorerOptions, exploreCrashes, replayCrashes } from './explorer.ts';
export { type ConformanceTest, type FileSystemSuiteOptions, fileSystemSuite } from './file-system-suite.ts';
export { checkLinearizable, type LinearizabilityViolation } from './linearizability.ts';
export { type Random, seededRandom } from './random.ts';
export { FileSystemRecorder, type RecorderOptions } from './recorder.ts';
export { type ReplayOptions, replayTrace } from './replayer.ts';
export {
  type SectorCrash,
  SectorHistory,
  type SectorHistoryOptions,
  type SectorRequest,
  type SectorRequestOptions,
} from './sector-history.ts';
export { SharedStorage, type StorageOwner } from './shared-storage.ts';
export { shortTransfers, type TransferCalls } from './short-transfers.ts';
export { SimulatedClock, type SimulatedClockOptions } from './simulated-clock.ts';
export type { TraceBytes, TraceStep } from './trace.ts';
export { SECTOR_BYTES } from './unsynced-file.ts';
