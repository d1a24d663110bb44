/** Recognizes UDF, as on DVDs and Blu-ray discs, and reads the name of the volume. Source: ECMA-167. */

import { type Bytes, viewOf } from './bytes.ts';
import type { Recognized } from './signatures.ts';

const FIRST_DESCRIPTOR_AT = 32_768;
const DESCRIPTOR_BYTES = [2048, 4096];
const MAX_DESCRIPTORS = 16;
const ANCHOR_SECTOR = 256;
const TAG = { anchor: 2, logicalVolume: 6, end: 8 } as const;

export async function udf(bytes: Bytes, signal?: AbortSignal): Promise<Recognized | undefined> {
  for (const step of DESCRIPTOR_BYTES) {
    for (let count = 0; count < MAX_DESCRIPTORS; count++) {
      const at = FIRST_DESCRIPTOR_AT + count * step;
      if (at + 6 > bytes.size) break;
      const name = String.fromCharCode(...(await bytes.read(at + 1, 5, signal)));
      if (/^NSR0[23]$/.test(name)) return { kind: 'UDF', label: await labelOf(bytes, signal) };
      if (!/^(BEA01|CD001|BOOT2)$/.test(name)) break;
    }
  }
  return undefined;
}

/** The anchor is in sector 256, whatever the size of a sector is. It names the sequence that has the volume's name. */
async function labelOf(bytes: Bytes, signal: AbortSignal | undefined): Promise<string> {
  for (const sectorBytes of [512, 1024, 2048, 4096]) {
    const at = ANCHOR_SECTOR * sectorBytes;
    if (at + 512 > bytes.size) break;
    const anchor = viewOf(await bytes.read(at, 32, signal));
    if (anchor.getUint16(0, true) !== TAG.anchor || anchor.getUint32(12, true) !== ANCHOR_SECTOR) continue;
    const start = anchor.getUint32(20, true);
    for (let sector = start; sector < start + MAX_DESCRIPTORS; sector++) {
      if ((sector + 1) * sectorBytes > bytes.size) break;
      const raw = await bytes.read(sector * sectorBytes, 512, signal);
      const tag = viewOf(raw).getUint16(0, true);
      if (tag === TAG.logicalVolume) return dstring(raw.subarray(84, 212));
      if (tag === TAG.end) break;
    }
  }
  return '';
}

/** Decodes a field that ends with the length of its text, and begins with the bits of a character. */
function dstring(field: Uint8Array): string {
  const length = Math.min(field.at(-1)!, field.length - 1);
  const characters = field.subarray(1, Math.max(1, length));
  return field[0] === 16 ? new TextDecoder('utf-16be').decode(characters) : String.fromCharCode(...characters);
}
