/** Changes by other programs to a target between two runs of the command, and jumps of the wall clock. */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { sha256OfFile } from '../../src/cli/hash.ts';
import { eventsOf, runCommand } from '../cli/command.ts';
import { crashCopy, IMAGE_BYTES, imageBytes, leaveCopy, makeImage } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { bundleForNode } from '../support/bundle.ts';
import { expectBytes } from '../support/bytes.ts';
import { serveFile } from '../support/range-server.ts';

const WRITTEN = { offset: IMAGE_BYTES / 2 + 10, bytes: new Uint8Array(100).fill(0xaa) };

/** The contents that {@link leaveCopy} gives the copy. */
function copied(): Uint8Array {
  const bytes = imageBytes();
  bytes.set(WRITTEN.bytes, WRITTEN.offset);
  return bytes;
}

interface Change {
  readonly name: string;
  readonly code: string;
  readonly change: (target: string) => void;
}

const changes: readonly Change[] = [
  { name: 'truncated by a byte', code: 'COD_CORRUPT', change: (target) => truncateSync(target, IMAGE_BYTES - 1) },
  { name: 'truncated to nothing', code: 'COD_CORRUPT', change: (target) => truncateSync(target, 0) },
  { name: 'deleted', code: 'COD_CORRUPT', change: (target) => rmSync(target) },
  { name: 'made longer', code: 'COD_SIZE_MISMATCH', change: (target) => truncateSync(target, IMAGE_BYTES + 1) },
  {
    name: 'swapped for a smaller image',
    code: 'COD_CORRUPT',
    change: (target) => writeFileSync(target, imageBytes(2).subarray(0, IMAGE_BYTES / 2)),
  },
  {
    name: 'swapped for a larger image',
    code: 'COD_SIZE_MISMATCH',
    change: (target) => writeFileSync(target, new Uint8Array(2 * IMAGE_BYTES)),
  },
  {
    name: 'swapped for a directory',
    code: 'COD_TARGET_IO',
    change: (target) => {
      rmSync(target);
      mkdirSync(target);
    },
  },
];

for (const [how, leave] of [
  ['closed', leaveCopy],
  ['killed', crashCopy],
] as const) {
  test.for(changes)(
    `refuses a target that was $name after its process was ${how}, and changes nothing`,
    async ({ code, change }) => {
      const directory = temporaryDirectory();
      const image = makeImage(temporaryDirectory());
      const target = await leave(image, directory);
      const kept = join(temporaryDirectory(), 'kept');
      writeFileSync(kept, readFileSync(target));
      change(target);
      const before = contentsOf(directory);
      const refused = await runCommand(['copy', image, target]);
      expect(refused.stderr).toMatch(new RegExp(`^copyondemand: ${code}: .+\n$`));
      expect(refused.exitCode).toBe(1);
      expect(contentsOf(directory)).toEqual(before);

      // The original file, put back, is accepted.
      rmSync(target, { recursive: true, force: true });
      renameSync(kept, target);
      const again = await runCommand(['copy', image, target, '--json']);
      expect(eventsOf(again)[0]!['resumedBytes']).toBe(IMAGE_BYTES / 4);
      expectBytes(new Uint8Array(readFileSync(target)), copied());
    },
  );
}

test('only a digest detects a target that was replaced with another image of the same size', async () => {
  const directory = temporaryDirectory();
  const image = makeImage(temporaryDirectory());
  const target = await leaveCopy(image, directory);
  const written = imageBytes();
  const wanted = join(temporaryDirectory(), 'wanted');
  writeFileSync(wanted, copied());
  writeFileSync(target, written.fill(7));
  const refused = await runCommand(['copy', image, target, '--sha256', await sha256OfFile(wanted), '--quiet']);
  expect(refused.stderr).toMatch(/^copyondemand: COD_MISMATCH: .+\n$/);
  expect(refused.exitCode).toBe(1);
  expect(readdirSync(directory)).toContain('disk.bak');
});

const CLOCK = pathToFileURL(join(import.meta.dirname, '../support/jumping-clock.mjs')).href;

test('rates, retries, checkpoints and figures do not depend on the wall clock', async () => {
  const directory = temporaryDirectory();
  const image = makeImage(temporaryDirectory());
  const server = await serveFile(image);
  onTestFinished(() => server.close());
  const { NODE_OPTIONS: before } = process.env;
  process.env['NODE_OPTIONS'] = `--import=${CLOCK}`;
  onTestFinished(() => {
    if (before === undefined) delete process.env['NODE_OPTIONS'];
    else process.env['NODE_OPTIONS'] = before;
  });
  const looks = execFileSync(process.execPath, ['-p', 'Date.now() - new Date().getTime()'], { encoding: 'utf8' });
  expect(Math.abs(Number(looks)), 'the preload works').toBeGreaterThan(1e10);
  const result = await runCommand(['copy', server.url, 'disk', '--json', '--rate', '2M', '--timeout', '5'], {
    cwd: directory,
  });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  const done = eventsOf(result).at(-1)!;
  expect(done.event).toBe('done');
  // 1 MiB at 2 MiB/s, of which the first 64 KiB are not delayed.
  expect(done['seconds']).toBeGreaterThan(0.3);
  expect(done['seconds']).toBeLessThan(3600);
  expect(done['bytesPerSecond']).toBeLessThan(IMAGE_BYTES / 0.3);
  expect(await sha256OfFile(join(directory, 'disk'))).toBe(await sha256OfFile(image));
});

test('takes a lock over from a dead process but not from a live one, independent of the wall clock', async () => {
  const directory = temporaryDirectory();
  const image = makeImage(temporaryDirectory());
  const program = await bundleForNode('kill-user.ts');
  const order = {
    source: image,
    target: join(directory, 'disk'),
    size: IMAGE_BYTES,
    users: 1,
    seed: 1,
    life: 0,
    rateBytesPerSecond: 2 ** 18,
  };
  const child = spawn(process.execPath, [`--import=${CLOCK}`, program, JSON.stringify(order)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  // Read all output: the child would block on a full pipe.
  const lines = createInterface(child.stdout);
  await new Promise<void>((resolve) => lines.on('line', (line) => line === 'done 0 20' && resolve()));
  const second = await runCommand(['copy', image, order.target]);
  expect(second.stderr).toMatch(new RegExp(`^copyondemand: COD_LOCKED: .*${child.pid}.*\n$`));
  expect(second.exitCode).toBe(1);
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
  expect(statSync(`${order.target}.lock`).isFile()).toBe(true);
  const third = await runCommand(['copy', image, order.target, '--quiet']);
  expect(third).toMatchObject({ exitCode: 0, stderr: '' });
  expect(readdirSync(directory)).toEqual(['disk']);
});
