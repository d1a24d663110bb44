/** Exports, and what the server advertises of them. The flags follow from the methods that a device has. */

import type { Done } from '../../async/done.ts';
import type { DeviceExtent, InlineDevice } from '../../device/types.ts';
import { ALLOCATION_FLAG, BASE_ALLOCATION, COPY_STATE, COPY_STATE_VALUE, TRANSMISSION_FLAG } from '../constants.ts';
import type { ExportInfo } from './handshake.ts';
import { LIMITS } from './limits.ts';

/** A device to export. Its optional methods determine what is advertised; a device of `openDevice` has all of them. */
export interface NbdDevice {
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /** Absent: the export is read-only, and `discard` and `writeZeroes` are not used. */
  write?(from: Uint8Array, offset: number, options?: { fua?: boolean }): Promise<void>;
  flush?(): Promise<void>;
  discard?(offset: number, length: number): Promise<void>;
  writeZeroes?(offset: number, length: number): Promise<void>;
  hydrateRange?(offset: number, length: number, options?: { signal?: AbortSignal }): Promise<void>;
  extents?(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]>;
}

/** A device whose calls may complete synchronously, as those of `openDevice` do. */
export type InlineNbdDevice = NbdDevice & Partial<Pick<InlineDevice, 'submitRead' | 'submitWrite' | 'commitWrites'>>;

/** Reads, synchronously if the device can. */
export function submitRead(device: InlineNbdDevice, into: Uint8Array, offset: number, signal: AbortSignal): Done {
  return device.submitRead === undefined
    ? device.read(into, offset, { signal })
    : device.submitRead(into, offset, signal);
}

/** A device and how it is exported. Its name is the key in the map of exports. */
export interface NbdExport {
  readonly device: NbdDevice;
  /** Refuses every change. Default: false. */
  readonly readOnly?: boolean;
  /** Shown to clients that list the exports. */
  readonly description?: string;
}

/** Returns why `name` cannot be the name of an export, or undefined if it can. */
export function wrongName(name: string): string | undefined {
  const bytes = new TextEncoder().encode(name).length;
  // The specification: "An export name MUST NOT be longer than 4096 bytes". Clients of the kernel take fewer.
  if (bytes > 4096) return `it has ${bytes} bytes, 4096 are allowed`;
  return name.includes('\0') ? 'it contains a zero byte' : undefined;
}

/** Returns what the server advertises of an export. */
export function exportInfo(name: string, { device, readOnly = false, description }: NbdExport): ExportInfo {
  const flag = TRANSMISSION_FLAG;
  // All connections share one device, so a flush on one of them covers the writes of all.
  let flags = flag.hasFlags | flag.sendDf | flag.canMultiConn;
  if (device.hydrateRange !== undefined) flags |= flag.sendCache;
  // Read-only exports advertise it too, since clients flush them.
  if (device.flush !== undefined) flags |= flag.sendFlush;
  if (readOnly || device.write === undefined) {
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
    contexts: device.extents === undefined ? [] : CONTEXTS.map((context) => context.name),
  };
}

/** The metadata contexts, with the status that each gives an extent. A context's id is its index plus 1. */
export const CONTEXTS: readonly { readonly name: string; readonly statusOf: (extent: DeviceExtent) => number }[] = [
  { name: BASE_ALLOCATION, statusOf: ({ zero }) => (zero ? ALLOCATION_FLAG.hole | ALLOCATION_FLAG.zero : 0) },
  { name: COPY_STATE, statusOf: ({ state }) => COPY_STATE_VALUE[state] },
];
