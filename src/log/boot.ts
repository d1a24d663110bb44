/** The name of the machine's boot in the headers of logs. A log of another boot counts up to its last barrier only. */

import { decodeLogHeader, encodeLogHeader, type LogHeader } from '../core/headers.ts';
import { HEADER_BYTES, MAX_BOOT_NAME_BYTES } from '../core/layout.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import type { SlotIndex, Slots } from './slots.ts';

/** The boot's name as a header stores it: at most {@link MAX_BOOT_NAME_BYTES} of it. */
export function bootNameBytes(bootId: string | undefined): Uint8Array {
  return bootId === undefined ? new Uint8Array(0) : new TextEncoder().encode(bootId).subarray(0, MAX_BOOT_NAME_BYTES);
}

/** A log whose header names a boot. */
interface NamedLog {
  readonly file: File;
  readonly header: LogHeader;
}

/**
 * Removes the boot's name from the logs in these slots, so that the next start believes only what was durable. Not
 * durable itself: it speaks of the same page cache.
 *
 * The older log comes first: wherever this is interrupted, a log must not continue a log of another boot.
 */
export async function disownBoot(core: Core, slots: Slots, indexes: readonly SlotIndex[]): Promise<void> {
  const logs: NamedLog[] = [];
  for (const slot of indexes) {
    const file = await slots.find('log', slot);
    const log = file && (await namedLog(core, file));
    if (log !== undefined) logs.push(log);
  }
  for (const { file, header } of logs.sort((one, other) => one.header.epoch - other.header.epoch)) {
    await file.write(encodeLogHeader(core, { ...header, bootName: new Uint8Array(0) }), 0);
  }
}

async function namedLog(core: Core, file: File): Promise<NamedLog | undefined> {
  if ((await file.size()) < HEADER_BYTES) return undefined;
  const sector = new Uint8Array(HEADER_BYTES);
  await file.read(sector, 0);
  const decoded = decodeLogHeader(core, sector);
  return decoded.state === 'valid' && decoded.header.bootName.length > 0 ? { file, header: decoded.header } : undefined;
}
