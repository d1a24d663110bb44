/** A day in the life of a server: a guest runs while its source goes away, and while operators work on the copy. */

import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { CopyStatus } from '../../src/node.ts';
import { runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { Guest, makeGuestImage, missingForGuests } from '../support/guest.ts';
import { runProgram } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';
import { PYTHON, SocketHolder, startManager } from '../support/service-parent.ts';

const MiB = 2 ** 20;
/** Where another client writes. The guest reads elsewhere. */
const WRITTEN = { offset: 40 * MiB, length: MiB, byte: 7 };
const missing = missingForGuests('qemu-io', 'systemd-notify', PYTHON);
const name = 'a day in the life of a server';

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Asks for metrics all along, also while no server runs. */
class Scraper {
  readonly texts: string[] = [];
  readonly #stop = new AbortController();
  readonly done: Promise<void>;

  constructor(port: number) {
    this.done = this.#run(`http://127.0.0.1:${port}/metrics`);
    onTestFinished(() => this.#stop.abort());
  }

  async #run(url: string): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const response = await fetch(url).catch(() => undefined);
      const text = await response?.text().catch(() => undefined);
      if (text !== undefined) this.texts.push(text);
      await sleep(500, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  stop(): Promise<void> {
    this.#stop.abort();
    return this.done;
  }
}

/** Returns a metric of each text that has it. */
function valuesOf(texts: readonly string[], metric: string): number[] {
  return texts.flatMap((text) => {
    const lines = text.split('\n').filter((line) => line.startsWith(`${metric}{`) || line.startsWith(`${metric} `));
    return lines.length === 0 ? [] : [lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)];
  });
}

describe.skipIf(missing.length > 0)(missing.length === 0 ? name : `${name} (missing: ${missing.join(', ')})`, () => {
  test('gives its guest no error', async () => {
    const directory = temporaryDirectory();
    const { path: image, sha256 } = makeGuestImage(directory, 12);
    const [socket, target, notify] = ['s', 'disk', 'notify'].map((each) => join(directory, each)) as [
      string,
      string,
      string,
    ];
    let source = await serveFile(image);
    onTestFinished(() => source.close());
    const manager = await startManager(notify);
    const port = await freePort();
    const rate = ['--rate', '256k', '--timeout', '900', '--metrics', String(port)];
    const env = { ...process.env, NOTIFY_SOCKET: notify, WATCHDOG_USEC: '2000000' };
    const holder = await SocketHolder.start([socket], ['serve', source.url, target, ...rate], env);
    const command = async (...args: string[]): Promise<string> => {
      const { exitCode, stdout, stderr } = await runCommand(args);
      expect(exitCode, `${args.join(' ')}: ${stderr}`).toBe(0);
      return stdout;
    };
    const status = async () => JSON.parse(await command('status', target, '--json')) as CopyStatus;
    const until = async (isDone: (found: CopyStatus) => boolean): Promise<void> => {
      while (!isDone(await status())) await sleep(200);
    };

    let server = await holder.serve();
    await manager.seen(/READY=1/);
    const scraper = new Scraper(port);
    const guest = new Guest(socket, 'virtio-blk-pci');
    await guest.shell();
    const check = async (at: number) => expect(await guest.hash(at * MiB, MiB)).toBe(sha256(at * MiB, MiB));
    await check(16);

    // The source goes away, and returns.
    const { port: sourcePort } = new URL(source.url);
    await source.close();
    const waiting = guest.hash(32 * MiB, MiB);
    await until(({ state }) => state === 'waiting');
    source = await serveFile(image, { port: Number(sourcePort) });
    expect(await waiting).toBe(sha256(32 * MiB, MiB));
    await until(({ state }) => state === 'hydrating');

    // An operator pauses the copy. What the guest needs is still fetched.
    await command('pause', target);
    await check(48);
    const paused = await status();
    await sleep(2000);
    expect(await status()).toMatchObject({ state: 'paused', syncedBlocks: paused.syncedBlocks });
    await command('resume', target);

    // A snapshot, while another client writes.
    const { offset, length, byte } = WRITTEN;
    let isTaken = false;
    const writing = (async () => {
      do {
        const write = ['-f', 'raw', '-c', `write -P ${byte} ${offset} ${length}`, '-c', 'flush'];
        expect(await runProgram('qemu-io', ...write, `nbd+unix:///?socket=${socket}`)).toMatchObject({ exitCode: 0 });
      } while (!isTaken);
    })();
    await command('snapshot', target, `${target}.night`);
    isTaken = true;
    await writing;
    await command('copy', source.url, `${target}.night`, '--quiet');
    const bytes = readFileSync(image);
    const night = readFileSync(`${target}.night`);
    const expected = Buffer.from(bytes);
    for (let at = offset; at < offset + length; at += 512) {
      const sector = night.subarray(at, at + 512);
      if (sector.every((each) => each === byte)) sector.copy(expected, at);
    }
    expectBytes(night, expected);

    // The kernel kills the server in the middle of a read, for lack of memory.
    const killed = guest.hash(52 * MiB, 4 * MiB);
    const before = source.requests;
    while (source.requests < before + 3) await sleep(5);
    process.kill(server.pid, 'SIGKILL');
    await server.ended();
    server = await holder.serve();
    expect(await killed).toBe(sha256(52 * MiB, 4 * MiB));

    // An upgrade.
    process.kill(server.pid, 'SIGTERM');
    expect(await server.ended()).toBe(0);
    server = await holder.serve();
    await check(16);

    // The copy becomes complete, and an ordinary file.
    await command('set-rate', target, 'unlimited');
    await until(({ state }) => state === 'hydrated');
    await check(60);
    await scraper.stop();
    process.kill(server.pid, 'SIGTERM');
    expect(await server.ended()).toBe(0);
    expect(manager.all().at(-1)).toContain('STOPPING=1');
    await command('finish', target);
    bytes.fill(byte, offset, offset + length);
    expectBytes(readFileSync(target), bytes);

    const total = valuesOf(scraper.texts, 'copyondemand_source_bytes_total');
    expect(Math.max(...total)).toBeGreaterThan(MiB);
    // Counters begin again with each of the three servers, and never fall otherwise.
    expect(total.filter((value, index) => value < (total[index - 1] ?? 0)).length).toBeLessThanOrEqual(2);
    expect(Math.max(...valuesOf(scraper.texts, 'copyondemand_nbd_clients'))).toBeGreaterThanOrEqual(1);
  });
});
