/** Copies that are steered from outside, as processes: by an order, by a rate file, and by each other. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { sha256OfFile } from '../../src/cli/hash.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { type JsonEvent, type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { HostileServer } from '../support/http-server.ts';

const MIB = 2 ** 20;

/** A copy that tells what it does, and can be asked to wait for it. */
class Copy {
  readonly running: Running;
  readonly #events: JsonEvent[] = [];
  #waiting: (() => void)[] = [];

  constructor(args: readonly string[], options: { cwd: string; env: NodeJS.ProcessEnv }) {
    this.running = startCommand(['copy', ...args, '--json'], {
      ...options,
      onLine: (line) => {
        this.#events.push(JSON.parse(line) as JsonEvent);
        for (const wake of this.#waiting.splice(0)) wake();
      },
    });
    onTestFinished(() => void this.running.child.kill('SIGKILL'));
  }

  /** Resolves when the last word on the rate is this. */
  async rate(bytesPerSecond: number | null, members: number): Promise<void> {
    for (;;) {
      const last = this.#events.findLast(({ event }) => event === 'rate');
      if (last?.['bytesPerSecond'] === bytesPerSecond && last['members'] === members) return;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }
}

test('three copies share a rate; those that are killed or interrupted give theirs back; a file changes it for all', async () => {
  const directory = temporaryDirectory();
  const env = { XDG_RUNTIME_DIR: temporaryDirectory() };
  writeFileSync(join(directory, 'image'), seededRandom(1).fill(new Uint8Array(32 * MIB)));
  writeFileSync(join(directory, 'rate'), '3M\n');
  const flags = ['--rate-file', 'rate', '--rate-group', 'test'];
  const [killed, interrupted, last] = ['a', 'b', 'c'].map((target) => new Copy(['image', target, ...flags], { cwd: directory, env }));
  await Promise.all([killed, interrupted, last].map((copy) => copy!.rate(MIB, 3)));

  killed!.running.child.kill('SIGKILL');
  await Promise.all([interrupted, last].map((copy) => copy!.rate(1.5 * MIB, 2)));

  interrupted!.running.child.kill('SIGTERM');
  expect((await interrupted!.running.result).exitCode).toBe(130);
  await last!.rate(3 * MIB, 1);

  writeFileSync(join(directory, 'rate'), 'unlimited\n');
  await last!.rate(null, 1);
  expect((await last!.running.result).exitCode).toBe(0);
  expect(await sha256OfFile(join(directory, 'c'))).toBe(await sha256OfFile(join(directory, 'image')));
});

test('--order copies first what is in the file', async () => {
  const directory = temporaryDirectory();
  const server = await HostileServer.start(seededRandom(2).fill(new Uint8Array(8 * MIB)));
  onTestFinished(() => server.stop());
  const order = `copyondemand order 1\nsize ${8 * MIB}\n0 ${6 * MIB} 4096\n3 ${2 * MIB} 8192\n`;
  writeFileSync(join(directory, 'order'), order);
  const result = await runCommand(['copy', server.url, 'disk', '--order', 'order', '--concurrency', '1', '--quiet'], { cwd: directory });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(server.ranges.slice(1, 3)).toEqual([`bytes=${6 * MIB}-${6 * MIB + 4095}`, `bytes=${2 * MIB}-${2 * MIB + 8191}`]);
});
