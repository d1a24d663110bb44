/** Copies and servers, as processes, whose rate or order is controlled by an order file, a rate file or each other. */

import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { sha256OfFile } from '../../src/cli/hash.ts';
import { readOrder } from '../../src/cli/order-file.ts';
import { nbdSource } from '../../src/nbd.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { type JsonEvent, type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { HostileServer } from '../support/http-server.ts';
import { startServe } from '../support/programs.ts';

const MIB = 2 ** 20;

/** A command whose events can be awaited. */
class Steered {
  readonly running: Running;
  readonly #events: JsonEvent[] = [];
  #waiting: (() => void)[] = [];

  constructor(args: readonly string[], options: { cwd: string; env: NodeJS.ProcessEnv }) {
    this.running = startCommand([...args, '--json'], {
      ...options,
      onLine: (line) => {
        this.#events.push(JSON.parse(line) as JsonEvent);
        for (const wake of this.#waiting.splice(0)) wake();
      },
    });
    onTestFinished(() => void this.running.child.kill('SIGKILL'));
  }

  /** Resolves when the latest rate event reports these values. */
  async rate(bytesPerSecond: number | null, members: number): Promise<void> {
    for (;;) {
      const last = this.#events.findLast(({ event }) => event === 'rate');
      if (last?.['bytesPerSecond'] === bytesPerSecond && last['members'] === members) return;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }
}

test('members of a rate group share its rate, get the share of an ended member, and follow the rate file', async () => {
  const directory = temporaryDirectory();
  const env = { XDG_RUNTIME_DIR: temporaryDirectory() };
  writeFileSync(join(directory, 'image'), seededRandom(1).fill(new Uint8Array(32 * MIB)));
  writeFileSync(join(directory, 'rate'), '3M\n');
  const flags = ['--rate-file', 'rate', '--rate-group', 'test'];
  const start = (...args: string[]) => new Steered([...args, ...flags], { cwd: directory, env });
  const killed = start('copy', 'image', 'a');
  const interrupted = start('serve', 'image', 'b', '--socket', 's');
  const last = start('copy', 'image', 'c');
  await Promise.all([killed, interrupted, last].map((one) => one.rate(MIB, 3)));

  killed.running.child.kill('SIGKILL');
  await Promise.all([interrupted, last].map((one) => one.rate(1.5 * MIB, 2)));

  interrupted.running.child.kill('SIGTERM');
  expect((await interrupted.running.result).exitCode).toBe(0);
  await last.rate(3 * MIB, 1);

  writeFileSync(join(directory, 'rate'), 'unlimited\n');
  await last.rate(null, 1);
  expect((await last.running.result).exitCode).toBe(0);
  expect(await sha256OfFile(join(directory, 'c'))).toBe(await sha256OfFile(join(directory, 'image')));
});

test('a killed server has recorded its reads, and the next server copies those blocks first', async () => {
  const directory = temporaryDirectory();
  const image = seededRandom(2).fill(new Uint8Array(8 * MIB));
  const server = await HostileServer.start(image);
  onTestFinished(() => server.stop());
  const [order, socket] = [join(directory, 'order'), join(directory, 's')];
  const at = (name: string) => [server.url, join(directory, name), '--socket', socket];

  const first = await startServe(...at('first'), '--no-hydrate', '--record-order', order);
  const reader = await nbdSource(first.uri);
  for (const offset of [6 * MIB + 5, 2 * MIB, 6 * MIB, 4 * MIB]) await reader.read(new Uint8Array(600_000), offset);
  await vi.waitFor(async () => expect((await readOrder(order)).extents).toHaveLength(3), { timeout: 60_000 });
  await reader.close();
  await first.stop('SIGKILL');
  appendFileSync(order, '99 12');

  // The source is asked for its size and its first and last bytes. With a rate limit, one stretch is in flight then.
  server.asks.length = 0;
  const second = await startServe(...at('second'), '--rate', '1G', '--order', order);
  await vi.waitFor(() => expect(server.asks.length).toBeGreaterThanOrEqual(7), { timeout: 60_000 });
  expect(server.ranges.slice(3, 6).map((range) => Number(/\d+/.exec(range ?? '')))).toEqual([
    6 * MIB,
    2 * MIB,
    4 * MIB,
  ]);
  expect((await second.stop()).exitCode).toBe(0);
});

test('--order copies the listed blocks first', async () => {
  const directory = temporaryDirectory();
  const server = await HostileServer.start(seededRandom(2).fill(new Uint8Array(8 * MIB)));
  onTestFinished(() => server.stop());
  const order = `copyondemand order 1\nsize ${8 * MIB}\n0 ${6 * MIB} 4096\n3 ${2 * MIB} 8192\n`;
  writeFileSync(join(directory, 'order'), order);
  const result = await runCommand(['copy', server.url, 'disk', '--order', 'order', '--concurrency', '1', '--quiet'], {
    cwd: directory,
  });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(server.ranges.slice(3, 5)).toEqual([
    `bytes=${6 * MIB}-${6 * MIB + 4095}`,
    `bytes=${2 * MIB}-${2 * MIB + 8191}`,
  ]);
});

test('--rate unlimited is no limit', async () => {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'image'), 'content');
  const result = await runCommand(['copy', 'image', 'disk', '--rate', 'unlimited', '--json'], { cwd: directory });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(readFileSync(join(directory, 'disk'), 'utf8')).toBe('content');
});
