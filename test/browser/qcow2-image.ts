/** A qcow2 image without Node's means: clusters of data, of compressed data, of zeros, and one that is missing. */

const CLUSTER = 4096;
const [L1, L2, DATA, PACKED] = [1, 2, 3, 4].map((index) => index * CLUSTER) as [number, number, number, number];

/** The disk in {@link qcow2Image}. */
export function qcow2Disk(): Uint8Array<ArrayBuffer> {
  const disk = new Uint8Array(4 * CLUSTER);
  for (let at = 0; at < CLUSTER; at++) {
    disk[at] = at * 7;
    disk[CLUSTER + at] = at >> 5;
  }
  return disk;
}

export function qcow2Image(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(6 * CLUSTER);
  const view = new DataView(bytes.buffer);
  const disk = qcow2Disk();
  // Magic, version 3, bits of a cluster, size, L1 table, bits of a count, length of the header.
  const fields = [0, 0x5146_49fb, 4, 3, 20, 12, 28, disk.length, 36, 1, 44, L1, 96, 4, 100, 104];
  for (let index = 0; index < fields.length; index += 2) view.setUint32(fields[index]!, fields[index + 1]!);
  bytes.set(disk.subarray(0, CLUSTER), DATA);
  // One stored block of deflate, which is the last one.
  bytes.set([1, CLUSTER & 0xff, CLUSTER >> 8, ~CLUSTER & 0xff, (~CLUSTER >> 8) & 0xff], PACKED);
  bytes.set(disk.subarray(CLUSTER, 2 * CLUSTER), PACKED + 5);
  const sectors = CLUSTER / 512;
  const entries = [
    [L1, 0x8000_0000, L2],
    [L2, 0x8000_0000, DATA],
    [L2 + 8, 0x4000_0000 | (sectors << 26), PACKED],
    [L2 + 16, 0, 1],
  ] as const;
  for (const [at, high, low] of entries) {
    view.setUint32(at, high);
    view.setUint32(at + 4, low);
  }
  return bytes;
}
