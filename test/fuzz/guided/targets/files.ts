/** Files that people and other programs write: manifests, orders, and the configuration of `serve`. */

import { createHash } from 'node:crypto';
import { parseConfig } from '../../../../src/cli/config-file.ts';
import { UsageError } from '../../../../src/cli/failure.ts';
import { parseOrder } from '../../../../src/cli/order-file.ts';
import { bytesSource, createManifest, readManifest } from '../../../../src/index.ts';
import { mismatches } from '../../../../src/sources/manifest.ts';
import { verifiedSource } from '../../../../src/sources/verified.ts';
import { checkSize, Fields, joined, onlyCodErrors, type Target, u8 } from '../target.ts';

const sha256 = (...parts: readonly Uint8Array[]): Buffer =>
  parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();

/** Gives a manifest the root of its digests. */
function sealed(bytes: Uint8Array): Uint8Array {
  let level = bytes.subarray(64);
  while (level.length > 32) {
    const parents: Buffer[] = [];
    for (let at = 0; at < level.length; at += 32_768)
      parents.push(sha256(Uint8Array.of(1), level.subarray(at, at + 32_768)));
    level = Buffer.concat(parents);
  }
  const made = bytes.slice();
  if (made.length >= 64) made.set(sha256(Uint8Array.of(2), made.subarray(0, 32), level), 32);
  return made;
}

/** The input: whether the root is repaired, and the file. */
async function runManifest(input: Uint8Array): Promise<void> {
  const fields = new Fields(input);
  const isSealed = fields.u8() % 2 === 1;
  const bytes = isSealed ? sealed(fields.rest()) : fields.rest();
  const manifest = await onlyCodErrors(() => readManifest(bytesSource(bytes)));
  if (manifest === undefined) return;
  checkSize(manifest.size);
  const image = {
    size: manifest.size,
    read: async (into: Uint8Array) => void into.fill(0),
    close: async () => undefined,
  };
  const length = Math.min(manifest.size, 2 * manifest.extentBytes);
  await onlyCodErrors(() => mismatches(manifest, new Uint8Array(length), 0));
  const verified = await onlyCodErrors(() => verifiedSource(image, manifest));
  if (verified !== undefined) await onlyCodErrors(() => verified.read(new Uint8Array(length), manifest.size - length));
}

async function* manifestSeeds(): AsyncIterable<Uint8Array> {
  for (const [size, extentBytes] of [
    [1, 65_536],
    [200_000, 65_536],
    [100_000, 4096],
    [4_300_000, 4096],
  ] as const) {
    const { bytes } = await createManifest(bytesSource(new Uint8Array(size)), { extentBytes });
    for (const isSealed of [0, 1]) yield joined(u8(isSealed), bytes);
  }
}

async function runOrder(input: Uint8Array): Promise<void> {
  await onlyCodErrors(() => void parseOrder(Buffer.from(input).toString('latin1'), 'order'));
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function* orderSeeds(): Iterable<Uint8Array> {
  yield text('copyondemand order 1\nsize 1073741824\n0 0 4096\n12 1048576 65536\n');
  yield text('copyondemand order 2\nsize 5\n');
  yield text('copyondemand order 1\nsize 4096\n0 0 4096\n1 4095 1\n7 9');
}

async function runConfig(input: Uint8Array): Promise<void> {
  await onlyCodErrors(() => void parseConfig(new TextDecoder().decode(input), 'serve.json'), UsageError);
}

function* configSeeds(): Iterable<Uint8Array> {
  yield text(`{
  // all disks
  "socket": "/run/cod.sock", "control": "/run/control", /* of all */
  "defaults": { "rate": "20M", "user": "me:secret", "retries": 3 },
  "disks": [
    { "name": "a", "source": "https://example.org/a.raw", "target": "/srv/a.raw", "rate": "5M", "order": "/srv/order" },
    { "name": "b\\u0041\\n", "source": "nbd://host/x", "target": "/srv/b.raw", "hydrate": false, "readOnly": true },
    { "name": "c", "target": "c.raw", "metadata": "c.meta", "overwrite": true }
  ]
}`);
  yield text('{"host": "127.0.0.1", "port": 10809, "tlsCert": "c.pem", "tlsKey": "k.pem", "disks": []}');
  yield text(
    '{"disks": [{"name": "s", "source": "s3://bucket/key", "target": "t", "endpointUrl": "http://h",' +
      '"signRequest": false, "seed": ["a", "b"], "timeout": "5s"}]}',
  );
  yield text('\ufeff[1, -2.5e+3, true, null, "\\\\"]');
}

export const manifest: Target = { run: runManifest, seeds: manifestSeeds };
export const order: Target = { run: runOrder, seeds: orderSeeds };
export const config: Target = { run: runConfig, seeds: configSeeds, maxBytes: 2 ** 15 };
