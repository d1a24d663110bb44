/**
 * What src/ must know of the core: its exports, and the offset of each field that src/ reads from a handle.
 *
 * scripts/build-wasm.mjs compiles this module beside the core and writes src/wasm/generated/interface.ts from it. The
 * module itself is not shipped. A constant is named CLASS_FIELD.
 */
import { DirtyMap, Table } from './dirty';
import { Encoder } from './frames';
import { Replay } from './replay';
import { Scan } from './scan';

export * from './index';

export const DirtyMap_blocks: usize = offsetof<DirtyMap>('blocks');
export const DirtyMap_parts: usize = offsetof<DirtyMap>('parts');
export const DirtyMap_tables: usize = offsetof<DirtyMap>('tables');

export const Table_blocks: usize = offsetof<Table>('blocks');
export const Table_bytes: usize = offsetof<Table>();

export const Encoder_frames: usize = offsetof<Encoder>('frames');

export const Replay_records: usize = offsetof<Replay>('records');
export const Replay_ended: usize = offsetof<Replay>('ended');

export const Scan_endOffset: usize = offsetof<Scan>('endOffset');
export const Scan_barrierThrough: usize = offsetof<Scan>('barrierThrough');
export const Scan_frames: usize = offsetof<Scan>('frames');
export const Scan_records: usize = offsetof<Scan>('records');
export const Scan_torn: usize = offsetof<Scan>('torn');
export const Scan_firmBehind: usize = offsetof<Scan>('firmBehind');
export const Scan_barriers: usize = offsetof<Scan>('barriers');
export const Scan_continued: usize = offsetof<Scan>('continued');
export const Scan_basedAnywhere: usize = offsetof<Scan>('basedAnywhere');
