/** What a page loads for a device, compressed as a server does it: at most 30 kB beside roaring-wasm, which by itself is some 90. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { root, say } from './lib/steps.mjs';

const ROARING_BYTES = 90_000;
const OWN_BYTES = 30_000;

const sizes = ['browser.js', 'browser-worker.js'].map((name) => {
  const bytes = gzipSync(readFileSync(join(root, 'dist', name)), { level: 9 }).length;
  say(`dist/${name}: ${bytes} bytes compressed`);
  return bytes;
});
const sum = sizes.reduce((total, bytes) => total + bytes, 0);
if (sum > OWN_BYTES + ROARING_BYTES) {
  say(`${sum} bytes are more than ${OWN_BYTES + ROARING_BYTES}`);
  process.exitCode = 1;
}
