/**
 * Servers that fail in the middle of a copy by the command, temporarily or permanently. Servers that fail from the
 * start are in cli-refusals.long.test.ts.
 */

import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { type Device, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, type Result, runCommand, runUntil } from '../cli/command.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { nextEvent } from '../support/device-events.ts';
import { type Ask, type Behaviour, HostileServer, honest } from '../support/http-server.ts';
import { runProgram, startServe } from '../support/programs.ts';
import { describeWith } from '../support/tools.ts';

const MIB = 2 ** 20;
const IMAGE = seededRandom(1).fill(new Uint8Array(24 * MIB + 5));
/** How many bytes of a response arrive before the fault. */
const GOOD_BYTES = 3 * MIB + 1000;
/** How many consecutive responses fail, each after some progress. */
const FAULTS = 4;

type Headers = Record<string, string | undefined>;

/** Sends the head of a correct response and the beginning of its body. */
function sendBeginning(ask: Ask, bytes = GOOD_BYTES, headers: Headers = {}): void {
  ask.send({ body: false, headers });
  ask.socket.write(IMAGE.subarray(ask.start, Math.min(ask.end, ask.start + bytes)));
}

interface Passing {
  readonly name: string;
  readonly fail: Behaviour;
}

const passing: readonly Passing[] = [
  { name: 'stalls before its answer', fail: () => {} },
  { name: 'stalls in the middle of its answer', fail: (ask) => sendBeginning(ask) },
  {
    name: 'resets the connection in the middle of its answer',
    fail: (ask) => {
      sendBeginning(ask);
      setTimeout(() => ask.socket.resetAndDestroy(), 50);
    },
  },
  {
    name: 'ends the connection before its answer is whole',
    fail: (ask) => {
      sendBeginning(ask);
      ask.socket.end();
    },
  },
  {
    name: 'answers 500, 502, 503 and 429',
    fail: (ask) =>
      ask.send({
        status: [500, 502, 503, 429][ask.index % 4]!,
        body: 'try later',
        headers: { 'content-range': undefined },
      }),
  },
];

async function serve(behaviour: Behaviour): Promise<HostileServer> {
  const server = await HostileServer.start(IMAGE, behaviour);
  onTestFinished(() => server.stop());
  return server;
}

/**
 * Answers the requests of the open. Sends the beginning of the next response, then closes the connection. Passes every
 * later request to `then`.
 */
function failingHalfWay(then: Behaviour, headers: Headers): Behaviour {
  let begun = false;
  return (ask) => {
    if (ask.isOpening) ask.send({ headers });
    else if (begun) then(ask);
    else {
      begun = true;
      sendBeginning(ask, GOOD_BYTES, headers);
      setTimeout(() => ask.socket.destroy(), 300);
    }
  };
}

function expectCopied(result: Result, directory: string): void {
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expectBytes(new Uint8Array(readFileSync(join(directory, 'disk'))), IMAGE);
  expect(readdirSync(directory)).toEqual(['disk']);
}

function resumedBytes(result: Result): number {
  return eventsOf(result)[0]!['resumedBytes'] as number;
}

/** One minute of real time, the length of a server's restart. It passes while the other tests here run. */
const OUTAGE_MS = 60_000;
const outage = { directory: '', refusals: 0, result: undefined as Promise<Result> | undefined };

beforeAll(async () => {
  outage.directory = mkdtempSync(join(tmpdir(), 'cod-outage-'));
  let brokenAt: number | undefined;
  const server = await HostileServer.start(IMAGE, (ask) => {
    if (ask.isOpening) ask.send();
    else if (brokenAt === undefined) {
      brokenAt = performance.now();
      sendBeginning(ask);
      ask.socket.end();
    } else if (performance.now() - brokenAt < OUTAGE_MS) {
      outage.refusals++;
      ask.send({ status: 500, body: 'out of order', headers: { 'content-range': undefined } });
    } else ask.send();
  });
  outage.result = runCommand(['copy', server.url, 'disk', '--json'], { cwd: outage.directory });
  return async () => {
    await outage.result;
    await server.stop();
    rmSync(outage.directory, { recursive: true });
  };
});

test.for(passing)('retries a source that temporarily $name until the copy is complete', async ({ fail }) => {
  let faults = 0;
  const server = await serve((ask) => (ask.index > 0 && faults++ < FAULTS ? fail(ask) : ask.send()));
  const directory = temporaryDirectory();
  const result = await runCommand(['copy', server.url, 'disk', '--json', '--timeout', '1'], { cwd: directory });
  expect(faults).toBeGreaterThan(FAULTS);
  expectCopied(result, directory);
});

describeWith(['qemu-io'], 'a client of serve', () => {
  test('gets EIO when --timeout has passed, not when all attempts are used up', async () => {
    const server = await serve((ask) => (ask.isOpening ? ask.send() : ask.send({ status: 503, body: '' })));
    const directory = temporaryDirectory();
    const place = [join(directory, 'disk'), '--socket', join(directory, 's')];
    const served = await startServe(server.url, ...place, '--no-hydrate', '--timeout', '1');
    const { stdout, stderr } = await runProgram('qemu-io', '-r', '-f', 'raw', '-c', 'read 8M 4k', served.uri);
    expect(stdout + stderr).toContain('Input/output error');
    // The delays of five attempts exceed a second. A source makes 20.
    const attempts = server.asks.filter((ask) => !ask.isOpening).length;
    expect(attempts).toBeLessThanOrEqual(2 * 5);
    expect((await served.stop()).exitCode).toBe(0);
  });
});

/** A validator that changes with the content, and the headers before and after. */
const replaced: readonly { name: string; was: Headers; is: Headers; says: string }[] = [
  { name: 'a strong ETag', was: { etag: '"v1"' }, is: { etag: '"v2"' }, says: '"v2"' },
  {
    name: 'a weak ETag without Last-Modified',
    was: { etag: 'W/"1"', 'last-modified': undefined },
    is: { etag: 'W/"2"', 'last-modified': undefined },
    says: 'W/"2"',
  },
  { name: 'a malformed ETag', was: { etag: 'one' }, is: { etag: 'two' }, says: 'two' },
];

/** It takes a minute to prove that a source holds another image, so all wait for that at once. */
test('refuses a source whose content gets another version, now and later, and resumes with the old content', () =>
  Promise.all(replaced.map(refusesAnother)));

async function refusesAnother({ name, was, is, says }: (typeof replaced)[number]): Promise<void> {
  const before: Behaviour = (ask) => ask.send({ headers: was });
  const after: Behaviour = (ask) => ask.send({ headers: is });
  const server = await serve(failingHalfWay(after, was));
  const directory = temporaryDirectory();
  const command = ['copy', server.url, 'disk', '--json'];
  const changed = await runCommand(command, { cwd: directory });
  expect(changed.exitCode, name).toBe(1);
  expect(changed.stderr, name).toMatch(/^copyondemand: COD_SOURCE_CHANGED: .*\n$/);
  expect(changed.stderr, name).toContain(says);

  server.behaviour = after;
  const contents = contentsOf(directory);
  const later = await runCommand(command, { cwd: directory });
  expect(later.exitCode, name).toBe(1);
  expect(later.stderr, name).toMatch(/^copyondemand: COD_SOURCE_CHANGED: /);
  expect(contentsOf(directory), name).toEqual(contents);

  server.behaviour = before;
  const again = await runCommand(command, { cwd: directory });
  expect(resumedBytes(again), name).toBeGreaterThan(2 * MIB);
  expectCopied(again, directory);
}

describe('a source without ETag and Last-Modified is reported once', () => {
  const nameless: Behaviour = (ask) => ask.send({ headers: { etag: undefined, 'last-modified': undefined } });
  const warning = /^copyondemand: warning: (http:\/\/127\.0\.0\.1:\d+\/disk\.img\?…) has neither ETag nor .+$/gm;
  const start = async (): Promise<{ url: string; directory: string }> => {
    const server = await serve(nameless);
    const url = server.url.replace('http://', 'http://user:secret@');
    return { url: `${url}?signature=secret`, directory: temporaryDirectory() };
  };

  test.each([[[]], [['--quiet']], [['--json']], [['--quiet', '--json']]])('by copy %j', async (flags) => {
    const { url, directory } = await start();
    const result = await runCommand(['copy', url, 'disk', ...flags], { cwd: directory });
    expect(result.exitCode).toBe(0);
    expect(result.stderr.match(warning)).toEqual([expect.stringMatching(/; verify the complete copy with --sha256$/)]);
    expect(result.stdout + result.stderr).not.toContain('secret');
    if (flags.includes('--json')) {
      const warnings = eventsOf(result).filter(({ event }) => event === 'warning');
      expect(warnings).toEqual([{ event: 'warning', message: expect.stringContaining('has neither ETag') }]);
    }
  });

  test('by copy with --sha256, without the advice', async () => {
    const { url, directory } = await start();
    const digest = createHash('sha256').update(IMAGE).digest('hex');
    const result = await runCommand(['copy', url, 'disk', '--quiet', '--sha256', digest], { cwd: directory });
    expect(result.exitCode).toBe(0);
    expect(result.stderr.match(warning)).toEqual([expect.stringMatching(/the copy mixes both$/)]);
  });

  test('by serve, whose advice verifies a complete copy', async () => {
    const { url, directory } = await start();
    const served = await runUntil(
      ['serve', url, join(directory, 'disk'), '--socket', join(directory, 's'), '--quiet'],
      'SIGTERM',
      ({ event }) => event === 'hydrated',
    );
    expect(served.exitCode).toBe(0);
    expect(served.stderr.match(warning)).toEqual([expect.stringContaining('`copyondemand copy --sha256`')]);
    expect(served.stdout + served.stderr).not.toContain('secret');

    const digest = createHash('sha256').update(IMAGE).digest('hex');
    const wrong = await runCommand(['copy', url, 'disk', '--sha256', 'ab'.repeat(32)], { cwd: directory });
    expect(wrong.stderr).toContain('COD_MISMATCH');
    const verified = await runCommand(['copy', url, 'disk', '--sha256', digest, '--json'], { cwd: directory });
    expect(eventsOf(verified)).toContainEqual({ event: 'verified', sha256: digest });
    expect(readdirSync(directory)).toEqual(['disk']);
  });

  test('and a source with an ETag is not', async () => {
    const server = await serve(honest);
    const directory = temporaryDirectory();
    const result = await runCommand(['copy', server.url, 'disk', '--json'], { cwd: directory });
    expectCopied(result, directory);
    expect(eventsOf(result).some(({ event }) => event === 'warning')).toBe(false);
  });
});

test('exits with 1 when the source disappears, and resumes from another URL with the same content', async () => {
  const server = await HostileServer.start(IMAGE, (ask) => {
    if (ask.isOpening) ask.send();
    else {
      sendBeginning(ask);
      setTimeout(() => void server.stop(), 300);
    }
  });
  const directory = temporaryDirectory();
  const gone = await runCommand(['copy', server.url, 'disk', '--json', '--retries', '2'], { cwd: directory });
  expect(gone.exitCode).toBe(1);
  expect(gone.stderr).toMatch(/^copyondemand: COD_SOURCE_IO: .+after 3 attempts.+\n$/);
  expect(eventsOf(gone).at(-1)).toMatchObject({ event: 'error', code: 'COD_SOURCE_IO' });

  const mirror = await serve(honest);
  const again = await runCommand(['copy', mirror.url, 'disk', '--json'], { cwd: directory });
  expect(resumedBytes(again)).toBeGreaterThan(2 * MIB);
  const asks = mirror.asks.filter(({ isOpening }) => !isOpening);
  expect(asks.every(({ start }) => start >= resumedBytes(again))).toBe(true);
  expectCopied(again, directory);
});

test('without its source a device reads synced blocks and accepts writes; other reads fail', async () => {
  const server = await serve(honest);
  const source = await httpSource(server.url, { retry: { attempts: 2, baseDelayMs: 1 } });
  const directory = temporaryDirectory();
  const open = (hydrate: boolean): Promise<Device> =>
    openDevice({
      source,
      fileSystem: nodeFileSystem(directory),
      target: 'disk',
      ...(hydrate ? {} : { hydrate: false }),
    });
  const model = IMAGE.slice();
  const write = async (device: Device, offset: number, bytes: Uint8Array): Promise<void> => {
    await device.write(bytes, offset);
    model.set(bytes, offset);
  };
  let device = await open(false);
  await device.read(new Uint8Array(MIB), 0);
  await device.close();
  server.behaviour = (ask) => ask.socket.destroy();

  device = await open(true);
  expect(await nextEvent(device, 'retry')).toMatchObject({ code: 'COD_SOURCE_IO' });
  // The source gives up after its own retries.
  await expect.poll(() => device.status().state, { timeout: 60_000 }).toBe('waiting');
  await write(device, 5 * MIB + 3, seededRandom(2).fill(new Uint8Array(MIB)));
  await write(device, 100, seededRandom(3).fill(new Uint8Array(100)));
  await device.flush();
  for (const [offset, length] of [
    [0, MIB],
    [5 * MIB + 3, MIB],
  ] as const) {
    const bytes = new Uint8Array(length);
    await device.read(bytes, offset);
    expectBytes(bytes, model.slice(offset, offset + length));
  }
  await expect(device.read(new Uint8Array(10), 8 * MIB)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  server.behaviour = honest;
  const bytes = new Uint8Array(IMAGE.length);
  await device.read(bytes, 0);
  expectBytes(bytes, model);
  await device.close();

  device = await open(true);
  await device.hydrated;
  await device.finish();
  await source.close();
  expectBytes(new Uint8Array(readFileSync(join(directory, 'disk'))), model);
});

test('waits by default for a source that answers 500 for a minute in the middle of a copy', async () => {
  expectCopied((await outage.result)!, outage.directory);
  expect(outage.refusals).toBeGreaterThan(5);
  // The retries are not a busy loop.
  expect(outage.refusals).toBeLessThan(20);
});
