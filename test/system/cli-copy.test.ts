/** `copy` as a process: to completion, interrupted, killed at any moment, and resumed. */

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { sha256OfFile } from '../../src/cli/hash.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, type JsonEvent, runCommand, runUntil } from '../cli/command.ts';
import { makeImage, makeSparse } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { effort } from '../support/effort.ts';
import { HostileServer } from '../support/http-server.ts';
import { serveFile } from '../support/range-server.ts';
import { haveTool, toolPath } from '../support/tools.ts';

const MIB = 2 ** 20;
const IMAGE_BYTES = effort('COD_TEST_IMAGE_MIB', { short: 384, long: 1024 }) * MIB;
const KILLS = effort('COD_KILLS', { short: 5, long: 10 });
const SERVER_BYTES_PER_SECOND = 30e6;
/** What was copied after the last flush is fetched again: a second of copying at most, and what is in flight. */
const BYTES_LOST_BY_A_KILL = SERVER_BYTES_PER_SECOND + 16 * MIB;

/** An image of random bytes, zeros, and an ext4 file system with files in it. */
function makeLargeImage(directory: string, seed: number): string {
  const path = makeSparse(join(directory, 'image'), IMAGE_BYTES);
  const random = seededRandom(seed);
  const piece = random.fill(new Uint8Array(8 * MIB));
  const stamps = new DataView(piece.buffer);
  const fd = openSync(path, 'r+');
  for (let at = 0; at < IMAGE_BYTES * 0.4; at += piece.length) {
    // Cheaper than new random bytes, and no two blocks are equal.
    for (let block = 0; block < piece.length; block += 4096) stamps.setFloat64(block, at + block);
    writeSync(fd, piece, 0, piece.length, at);
  }
  if (haveTool('mke2fs')) {
    const ext4 = makeSparse(join(directory, 'ext4'), IMAGE_BYTES / 4);
    const content = temporaryDirectory();
    writeFileSync(join(content, 'README.txt'), 'a file system\n');
    writeFileSync(join(content, 'data.bin'), piece);
    execFileSync(toolPath('mke2fs')!, ['-q', '-F', '-t', 'ext4', '-d', content, ext4]);
    const source = openSync(ext4, 'r');
    for (let at = 0; at < IMAGE_BYTES / 4; ) {
      const bytes = readSync(source, piece, 0, piece.length, at);
      writeSync(fd, piece, 0, bytes, IMAGE_BYTES * 0.75 + at);
      at += bytes;
    }
    closeSync(source);
    rmSync(ext4);
  }
  closeSync(fd);
  return path;
}

/** The copied bytes that an event reports, or undefined for events without them. */
function bytesOf(event: JsonEvent): number | undefined {
  if (event.event === 'start') return event['resumedBytes'] as number;
  return event.event === 'progress' && event['phase'] === 'copying' ? (event['bytes'] as number) : undefined;
}

test('killed ten times, the same command resumes, fetches at most a second again and completes', async () => {
  const seed = Number(process.env['COD_KILL_SEED'] ?? Date.now() % 2 ** 31);
  console.log(
    `replay: COD_KILL_SEED=${seed} npx vitest run --project system test/system/cli-copy.test.ts -t 'killed ten times'`,
  );
  const random = seededRandom(seed);
  const directory = temporaryDirectory();
  const image = makeLargeImage(directory, seed);
  const server = await serveFile(image, { bytesPerSecond: SERVER_BYTES_PER_SECOND });
  onTestFinished(() => server.close());
  const copies = temporaryDirectory();
  const target = join(copies, 'disk');
  const command = ['copy', server.url, target];

  const moments = Array.from({ length: KILLS }, () => (random.below(900) / 1000) * IMAGE_BYTES).sort((a, b) => a - b);
  let copied = 0;
  for (const moment of moments) {
    const killed = await runUntil(command, 'SIGKILL', (event) => (bytesOf(event) ?? 0) >= moment);
    expect(killed).toMatchObject({ signal: 'SIGKILL', stderr: '' });
    const known = eventsOf(killed).flatMap((event) => bytesOf(event) ?? []);
    expect(known[0], 'the bytes copied a second before the kill are known').toBeGreaterThan(
      copied - BYTES_LOST_BY_A_KILL,
    );
    copied = Math.max(...known);
  }
  const digest = await sha256OfFile(image);
  const last = await runCommand([...command, '--json', '--sha256', digest]);
  expect(last.stderr).toBe('');
  expect(last.exitCode).toBe(0);
  expect(eventsOf(last).at(-1)).toMatchObject({ event: 'done', bytes: IMAGE_BYTES });
  expect(await sha256OfFile(target)).toBe(digest);
  expect(readdirSync(copies)).toEqual(['disk']);
  console.log(`sent ${(server.sentBytes / IMAGE_BYTES).toFixed(4)} times the image`);
  expect(server.sentBytes).toBeLessThanOrEqual(1.02 * IMAGE_BYTES + KILLS * BYTES_LOST_BY_A_KILL);
});

test.each(['SIGINT', 'SIGTERM'] as const)(
  'exits with 130 on %s after a clean stop, and the same command resumes',
  async (signal) => {
    const directory = temporaryDirectory();
    const image = makeSparse(join(directory, 'image'), 64 * MIB);
    writeFileSync(image, seededRandom(3).fill(new Uint8Array(24 * MIB)), { flag: 'r+' });
    const server = await serveFile(image, { bytesPerSecond: 40 * MIB });
    onTestFinished(() => server.close());
    const copies = temporaryDirectory();
    const command = ['copy', server.url, join(copies, 'disk')];

    const result = await runUntil(command, signal, (event) => (bytesOf(event) ?? 0) > 0);
    expect(result.exitCode).toBe(130);
    expect(result.stderr).toMatch(
      new RegExp(`^copyondemand: interrupted by ${signal} at [0-9.]+ %; the same command .+\n$`),
    );
    expect(eventsOf(result).at(-1)).toMatchObject({ event: 'error', code: 'Interrupted' });
    const state = JSON.parse((await runCommand(['inspect', join(copies, 'disk'), '--json'])).stdout) as {
      syncedBlocks: number;
    };
    expect(state.syncedBlocks).toBeGreaterThan(0);
    expect(readdirSync(copies)).not.toContain('disk.lock');

    const again = await runCommand([...command, '--json']);
    expect(again.exitCode).toBe(0);
    expect(eventsOf(again)[0]!['resumedBytes']).toBe(state.syncedBlocks * 4096);
    expect(await sha256OfFile(join(copies, 'disk'))).toBe(await sha256OfFile(image));
    expect(readdirSync(copies)).toEqual(['disk']);
  },
);

test('SIGINT ends a copy whose server never answers', async () => {
  const server = await HostileServer.start(new Uint8Array(4 * MIB), (ask) => {
    if (ask.isOpening) ask.send();
  });
  onTestFinished(() => server.stop());
  const target = join(temporaryDirectory(), 'disk');
  const result = await runUntil(['copy', server.url, target], 'SIGINT', ({ event }) => event === 'start');
  expect(result.exitCode).toBe(130);
});

test('copies a file with --rate, --concurrency and --sha256, and prints nothing on stdout', async () => {
  const directory = temporaryDirectory();
  const image = makeImage(directory);
  const digest = (await sha256OfFile(image)).toUpperCase();
  const result = await runCommand(
    ['copy', 'image', 'disk', '--rate', '800mbit', '--concurrency', '2', '--sha256', digest],
    {
      cwd: directory,
    },
  );
  expect(result).toMatchObject({ exitCode: 0, stdout: '' });
  expect(result.stderr).toMatch(/^disk: complete, 1 MiB in .+ SHA-256 verified\n$/);
  expect(await sha256OfFile(join(directory, 'disk'))).toBe(await sha256OfFile(image));
  expect(readdirSync(directory).sort()).toEqual(['disk', 'image']);
});

test('the same command after success confirms the copy by its digest, and never advises to remove it', async () => {
  const directory = temporaryDirectory();
  const { size } = statSync(makeImage(directory));
  const command = ['copy', 'image', 'disk'];
  expect(await runCommand(command, { cwd: directory })).toMatchObject({ exitCode: 0 });
  const digest = await sha256OfFile(join(directory, 'image'));
  const confirmed = await runCommand([...command, '--json', '--sha256', digest], { cwd: directory });
  expect(confirmed).toMatchObject({ exitCode: 0, stderr: '' });
  expect(eventsOf(confirmed).at(-1)).toMatchObject({ event: 'done', bytes: size, sourceBytes: 0 });
  for (const rest of [[], ['--sha256', '0'.repeat(64)]]) {
    const refused = await runCommand([...command, ...rest], { cwd: directory });
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(/COD_EXISTS: disk exists.*name another target/);
    expect(refused.stderr).not.toContain('remove');
  }
  expect(await sha256OfFile(join(directory, 'disk'))).toBe(digest);
});

test('--quiet prints nothing', async () => {
  const directory = temporaryDirectory();
  makeImage(directory);
  expect(await runCommand(['copy', 'image', 'disk', '--quiet'], { cwd: directory })).toMatchObject({
    exitCode: 0,
    stdout: '',
    stderr: '',
  });
});

test('--json prints one object per line, from start to done', async () => {
  const directory = temporaryDirectory();
  const image = makeImage(directory);
  truncateSync(image, MIB - 100);
  const result = await runCommand(['copy', 'image', 'disk', '--json', '--sha256', await sha256OfFile(image)], {
    cwd: directory,
  });
  const events = eventsOf(result);
  expect(result.stderr).toBe('');
  expect(events.map(({ event }) => event).filter((event, index, all) => event !== all[index - 1])).toEqual([
    'start',
    'progress',
    'hydrated',
    'verified',
    'done',
  ]);
  expect(events[0]).toMatchObject({ source: 'image', target: 'disk', size: MIB - 100, resumedBytes: 0 });
  expect(events.at(-1)).toMatchObject({ bytes: MIB - 100, sourceBytes: MIB - 100 });
  for (const field of ['seconds', 'bytesPerSecond']) expect(events.at(-1)![field]).toBeGreaterThan(0);
});

test('--stream-whole copies from a server without ranges in one request, with headers and credentials', async () => {
  const directory = temporaryDirectory();
  const image = seededRandom(5).fill(new Uint8Array(40 * MIB));
  const server = await HostileServer.start(image, (ask) =>
    ask.send({ status: 200, headers: { 'content-range': undefined }, body: image }),
  );
  onTestFinished(() => server.stop());
  const flags = ['--stream-whole', '--header', 'X-One: 1', '--user', 'me:secret', '--json'];
  const result = await runCommand(['copy', server.url, 'disk', ...flags], { cwd: directory });
  expect(result.exitCode).toBe(0);
  // For the length, for the first bytes, and for the copy.
  expect(server.asks).toHaveLength(3);
  for (const { headers } of server.asks) {
    expect(headers).toMatchObject({ 'x-one': '1', authorization: `Basic ${btoa('me:secret')}` });
  }
  expect(result.stdout).not.toContain('secret');
});
