/** A server that is out of order for a whole minute, in real time: as long as one takes to start anew. In a file of its own, to run beside the others. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { HostileServer } from '../support/http-server.ts';

const OUTAGE_MS = 60_000;
const GOOD_BYTES = 3_000_000;

test('a source that answers 500 for a minute in the middle of a copy is waited for, by default', async () => {
  const image = seededRandom(1).fill(new Uint8Array(12 * 2 ** 20));
  let brokenAt: number | undefined;
  let refusals = 0;
  const server = await HostileServer.start(image, (ask) => {
    if (ask.index === 0) return ask.send();
    if (brokenAt === undefined) {
      brokenAt = performance.now();
      ask.send({ body: false });
      ask.socket.end(image.subarray(ask.start, ask.start + GOOD_BYTES));
    } else if (performance.now() - brokenAt < OUTAGE_MS) {
      refusals++;
      ask.send({ status: 500, body: 'out of order', headers: { 'content-range': undefined } });
    } else ask.send();
  });
  onTestFinished(() => server.stop());
  const directory = temporaryDirectory();
  const result = await runCommand(['copy', server.url, 'disk', '--json'], { cwd: directory });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(refusals).toBeGreaterThan(5);
  // It is not asked again and again without a pause.
  expect(refusals).toBeLessThan(20);
  expect(readdirSync(directory)).toEqual(['disk']);
  expectBytes(new Uint8Array(readFileSync(join(directory, 'disk'))), image);
});
