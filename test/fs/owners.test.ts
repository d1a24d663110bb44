/**
 * Owners on two machines are killed and stopped at random. Each later owner reads whatever an owner has flushed.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { bundleForNode } from '../support/bundle.ts';
import { effort } from '../support/effort.ts';

type Message =
  | { readonly failed: string }
  | { readonly opened: true }
  | { readonly number: number; readonly values: readonly number[] }
  | { readonly block: number; readonly flushed: number };

const ROUNDS = effort('COD_OWNERS', { short: 8, long: 300 });
const BLOCKS = 4096;
const MACHINES = ['a', 'a', 'b', 'b'];
/** A beat each 25 ms, and a take-over after 150 ms. */
const SPEED = 200;
const LONGEST_STOP_MS = 400;
/** One of so many calls that change a name is late. */
const PAUSES = 20;

test('no flushed write is lost in take-overs', { timeout: 3_600_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'cod-owners-'));
  const user = await bundleForNode('owner-user.ts');
  const random = seededRandom(Date.now() % 2 ** 32);
  const flushed = new Array<number>(BLOCKS).fill(0);
  /** What was known to be flushed when an owner said that it had opened the copy. It has read the copy after that. */
  const floors: number[][] = [];
  /** What each owner has read. */
  const readings: (readonly number[])[] = [];
  const problems: string[] = [];
  let stops = 0;
  let kills = 0;

  /** An acknowledgement may come late, but then its check came early, and each later owner has found the write. */
  const compare = (number: number, block: number, least: number): void => {
    const value = readings[number]?.[block] ?? least;
    if (number > block && value < least)
      problems.push(`owner ${number} has read ${value}, but owner ${block} has flushed ${least}`);
  };
  const start = (machine: string): ChildProcess => {
    const child = fork(user, [directory, machine, String(SPEED), String(PAUSES)]);
    child.on('exit', (code) => {
      if (code !== null) problems.push(`a process ended with ${code}`);
    });
    child.on('message', (message: Message) => {
      if ('failed' in message) problems.push(message.failed);
      else if ('flushed' in message) {
        flushed[message.block] = message.flushed;
        compare(readings.length - 1, message.block, message.flushed);
      } else if ('opened' in message) {
        child.send(floors.length);
        floors.push([...flushed]);
      } else {
        readings[message.number] = message.values;
        for (const [block, least] of floors[message.number]!.entries()) compare(message.number, block, least);
      }
    });
    return child;
  };
  const end = async (child: ChildProcess): Promise<void> => {
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
  };

  const children = MACHINES.map(start);
  try {
    while ((floors.length < ROUNDS || Math.min(stops, kills) <= ROUNDS / 50) && problems.length === 0) {
      const index = random.below(children.length);
      const child = children[index]!;
      const pause = (ms: number): Promise<unknown> => new Promise((resolve) => setTimeout(resolve, random.below(ms)));
      await pause(60);
      if (random.oneIn(4)) {
        kills++;
        await end(child);
        children[index] = start(MACHINES[index]!);
      } else {
        stops++;
        child.kill('SIGSTOP');
        await pause(LONGEST_STOP_MS);
        child.kill('SIGCONT');
      }
    }
  } finally {
    await Promise.all(children.map(end));
    rmSync(directory, { recursive: true, force: true });
  }
  expect(problems.join('\n')).toBe('');
});
