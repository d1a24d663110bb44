/** Exports, and what the server advertises of them. The flags follow from the methods that a device has. */

import type { Done } from '../../async/done.ts';
import type { DeviceExtent, InlineDevice } from '../../device/types.ts';
import { BASE_ALLOCATION, COPY_STATE, MODIFIED_BLOCKS, TRANSMISSION_FLAG } from '../constants.ts';
import type { ExportInfo } from './handshake.ts';
import { LIMITS } from './limits.ts';

/**
 * A device to export. Its optional methods determine what the server advertises. A device of `openDevice` has all of
 * them. Offsets and lengths are in bytes. Commands are those of the NBD protocol (doc/proto.md).
 *
 * The client gets ENOSPC for COD_NO_SPACE, ENOMEM for COD_NO_MEMORY, ESHUTDOWN for COD_CLOSED, and EIO for any other
 * error.
 */
export interface NbdDevice {
  /** Bytes of the device. */
  readonly size: number;
  /** Bytes of a block. The preferred block size of the export is `clamp(blockSize, 512 B, 32 MiB)`. */
  readonly blockSize: number;
  /** Fills `into` with the bytes from `offset` on. Serves `NBD_CMD_READ`. */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Writes all of `from`, whose memory is reused once the promise has resolved. With `fua` the write is durable then.
   * Serves `NBD_CMD_WRITE`. Absent: the export is read-only, and `discard` and `writeZeroes` are not used.
   */
  write?(from: Uint8Array, offset: number, options?: { fua?: boolean }): Promise<void>;
  /**
   * Makes all completed writes durable. Serves `NBD_CMD_FLUSH` and `NBD_CMD_FLAG_FUA`; absent: neither is advertised.
   */
  flush?(): Promise<void>;
  /** Gives up the bytes, which need not read as before. Serves `NBD_CMD_TRIM`; absent: it is not advertised. */
  discard?(offset: number, length: number): Promise<void>;
  /** Makes the bytes read as zeros. Serves `NBD_CMD_WRITE_ZEROES`; absent: it is not advertised. */
  writeZeroes?(offset: number, length: number): Promise<void>;
  /** Fetches the bytes ahead of reads. Serves `NBD_CMD_CACHE`; absent: it is not advertised. */
  hydrateRange?(offset: number, length: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Returns up to `limit` extents from `offset` on. Serves `NBD_CMD_BLOCK_STATUS` with the contexts `base:allocation`
   * and `copyondemand:state`, and for a device of `openDevice` also `copyondemand:modified`. Absent: there are no
   * contexts.
   */
  extents?(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]>;
}

/** A device whose calls may complete synchronously, as those of `openDevice` do. */
export type InlineNbdDevice = NbdDevice &
  Partial<Pick<InlineDevice, 'submitRead' | 'submitWrite' | 'commitWrites' | 'modified' | 'readOnly'>>;

/** Reads, synchronously if the device can. */
export function submitRead(device: InlineNbdDevice, into: Uint8Array, offset: number, signal: AbortSignal): Done {
  return device.submitRead === undefined
    ? device.read(into, offset, { signal })
    : device.submitRead(into, offset, signal);
}

/** A device and how it is exported. Its name is the key in the map of exports. */
export interface NbdExport {
  /** The device. It belongs to the caller: closing the server does not close it. */
  readonly device: NbdDevice;
  /** Whether the export refuses every change. Default: whether the device was opened with `readOnly`. */
  readonly readOnly?: boolean;
  /** Text for clients that list the exports. Default: none. */
  readonly description?: string;
}

/** Returns why `name` cannot be the name of an export, or undefined if it can. */
export function wrongName(name: string): string | undefined {
  const bytes = new TextEncoder().encode(name).length;
  // The specification: "An export name MUST NOT be longer than 4096 bytes". Clients of the kernel take fewer.
  if (bytes > 4096) return `the name has ${bytes} bytes, at most 4096 are allowed`;
  return name.includes('\0') ? 'the name contains a zero byte' : undefined;
}

/** Returns what the server advertises of an export. */
export function exportInfo(name: string, { device, readOnly = false, description }: NbdExport): ExportInfo {
  const flag = TRANSMISSION_FLAG;
  // All connections share one device, so a flush on one of them covers the writes of all.
  let flags = flag.hasFlags | flag.sendDf | flag.canMultiConn;
  if (device.hydrateRange !== undefined) flags |= flag.sendCache;
  // Read-only exports advertise it too, since clients flush them.
  if (device.flush !== undefined) flags |= flag.sendFlush;
  if (readOnly || (device as InlineNbdDevice).readOnly || device.write === undefined) {
    flags |= flag.readOnly;
  } else {
    if (device.flush !== undefined) flags |= flag.sendFua;
    if (device.discard !== undefined) flags |= flag.sendTrim;
    if (device.writeZeroes !== undefined) flags |= flag.sendWriteZeroes | flag.sendFastZero;
  }
  return {
    name,
    description,
    size: device.size,
    flags,
    minimumBlockBytes: 1,
    preferredBlockBytes: Math.min(Math.max(512, device.blockSize), LIMITS.payloadBytes),
    maximumPayloadBytes: LIMITS.payloadBytes,
    contexts: contextsOf(device),
  };
}

/** The exports of a server. They come and go while clients are connected. */
export class Exports {
  readonly #devices = new Map<string, NbdDevice>();
  readonly #infos: ExportInfo[] = [];

  constructor(exports: ReadonlyMap<string, NbdExport>) {
    for (const [name, each] of exports) this.add(name, each);
  }

  /** What clients learn, in the order in which the exports were added. Always up to date. */
  get infos(): readonly ExportInfo[] {
    return this.#infos;
  }

  /** Returns the device of an export. */
  device(name: string): NbdDevice | undefined {
    return this.#devices.get(name);
  }

  /** @throws `RangeError` if there is an export of this name */
  add(name: string, added: NbdExport): void {
    if (this.#devices.has(name)) throw new RangeError(`there is an export ${JSON.stringify(name)} already`);
    this.#devices.set(name, added.device);
    this.#infos.push(exportInfo(name, added));
  }

  /** Clients find the export no more. Does nothing if there is none of this name. */
  remove(name: string): void {
    if (!this.#devices.delete(name)) return;
    this.#infos.splice(
      this.#infos.findIndex((info) => info.name === name),
      1,
    );
  }
}

/** The metadata contexts. A context's id is its index plus 1. */
export const CONTEXTS: readonly string[] = [BASE_ALLOCATION, COPY_STATE, MODIFIED_BLOCKS];

/** The contexts of an export: a beginning of {@link CONTEXTS}. */
function contextsOf(device: InlineNbdDevice): readonly string[] {
  if (device.extents === undefined) return [];
  return device.modified === undefined ? CONTEXTS.slice(0, 2) : CONTEXTS;
}
