/** What is exported, and what a client is told of it: what a device can do is what is advertised. */

import type { Done } from '../../async/done.ts';
import type { DeviceExtent, InlineDevice } from '../../device/types.ts';
import { ALLOCATION_FLAG, BASE_ALLOCATION, COPY_STATE, COPY_STATE_VALUE, TRANSMISSION_FLAG } from '../constants.ts';
import type { ExportInfo } from './handshake.ts';
import { LIMITS } from './limits.ts';

/** What a device must have to be exported, and what it may have; `openDevice` makes one that has all of it. */
export interface NbdDevice {
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /** Absent: the export is read-only, and the next five mean nothing. */
  write?(from: Uint8Array, offset: number, options?: { fua?: boolean }): Promise<void>;
  flush?(): Promise<void>;
  discard?(offset: number, length: number): Promise<void>;
  writeZeroes?(offset: number, length: number): Promise<void>;
  hydrateRange?(offset: number, length: number, options?: { signal?: AbortSignal }): Promise<void>;
  extents?(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]>;
}

/** A device whose calls can complete before they return; `openDevice` makes one. */
export type InlineNbdDevice = NbdDevice & Partial<Pick<InlineDevice, 'submitRead' | 'submitWrite' | 'commitWrites'>>;

/** Reads, now or later. */
export function submitRead(device: InlineNbdDevice, into: Uint8Array, offset: number, signal: AbortSignal): Done {
  return device.submitRead === undefined
    ? device.read(into, offset, { signal })
    : device.submitRead(into, offset, signal);
}

/** A device under a name. */
export interface NbdExport {
  readonly device: NbdDevice;
  /** Refuses every change. Default: false. */
  readonly readOnly?: boolean;
  /** For people who list the exports. */
  readonly description?: string;
}

/** Why an export cannot be had under this name, if so. */
export function wrongName(name: string): string | undefined {
  const bytes = new TextEncoder().encode(name).length;
  // "An export name MUST NOT be longer than 4096 bytes"; clients of the kernel take less.
  if (bytes > 4096) return `it has ${bytes} bytes, 4096 are allowed`;
  return name.includes('\0') ? 'it contains a zero byte' : undefined;
}

/** What is said of an export. */
export function exportInfo(name: string, { device, readOnly = false, description }: NbdExport): ExportInfo {
  const flag = TRANSMISSION_FLAG;
  // All connections see one device, whose flush covers all of them.
  let flags = flag.hasFlags | flag.sendDf | flag.canMultiConn;
  if (device.hydrateRange !== undefined) flags |= flag.sendCache;
  // Clients send flushes to read-only exports too; there is nothing to do.
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

/** The metadata contexts, in the order of their numbers from 1 on: what each says of an extent. */
export const CONTEXTS: readonly { readonly name: string; readonly statusOf: (extent: DeviceExtent) => number }[] = [
  { name: BASE_ALLOCATION, statusOf: ({ zero }) => (zero ? ALLOCATION_FLAG.hole | ALLOCATION_FLAG.zero : 0) },
  { name: COPY_STATE, statusOf: ({ state }) => COPY_STATE_VALUE[state] },
];
