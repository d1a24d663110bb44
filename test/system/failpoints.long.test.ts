/**
 * The command is killed before, or gets an error from, any of the system calls with which it changes files. strace
 * injects both. The same command then completes the copy, with every byte right.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Result, runCommand, startCommand } from '../cli/command.ts';
import { crashCopy, IMAGE_BYTES, imageBytes, makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { describeWith, toolPath } from '../support/tools.ts';

/** System calls, each with the errors that it may get. strace counts the calls of each thread. */
const CALLS: Readonly<Record<string, readonly string[]>> = {
  openat: ['EMFILE'],
  pwrite64: ['ENOSPC', 'EIO'],
  fdatasync: ['EIO'],
  fsync: ['EIO'],
  ftruncate: ['ENOSPC'],
  rename: ['EIO'],
  link: ['EIO'],
  unlink: ['EIO'],
  mkdir: ['ENOSPC'],
};
/** Commands at a time. */
const LANES = 3;
/** Node opens many files of its own, so that openat counts only for these. */
const NAMES = ['', '/disk', '/disk.bak', '/disk.bak.1', '/disk.wil', '/disk.wil.1', '/disk.lock'];

/** Runs the command under strace, in one thread beside the main one, so that the order of calls varies little. */
function runTraced(directory: string, image: string, options: readonly string[]): Promise<Result> {
  const paths = options.some((option) => option.includes('openat'))
    ? NAMES.flatMap((name) => ['-P', directory + name])
    : [];
  return startCommand(['copy', image, join(directory, 'disk'), '--quiet'], {
    under: [toolPath('strace')!, '-f', '-qq', ...paths, ...options],
    env: { UV_THREADPOOL_SIZE: '1' },
  }).result;
}

/** Returns how often the busiest thread makes each call. */
async function countCalls(directory: string, image: string, call: string): Promise<number> {
  const log = join(temporaryDirectory(), 'strace.log');
  expect((await runTraced(directory, image, ['-o', log, '-e', `trace=${call}`])).exitCode).toBe(0);
  const byThread = new Map<string, number>();
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    const [thread = '', text = ''] = line.split(/ +/, 2);
    if (text.startsWith(`${call}(`)) byThread.set(thread, (byThread.get(thread) ?? 0) + 1);
  }
  return Math.max(0, ...byThread.values());
}

interface Story {
  readonly name: string;
  /** Whether calls fail too. Otherwise they only kill. */
  readonly fails: boolean;
  /** Prepares a directory, and returns what the complete copy holds. */
  readonly prepare: (image: string, directory: string) => Promise<Uint8Array>;
}

const stories: readonly Story[] = [
  { name: 'a new copy', fails: true, prepare: async () => imageBytes() },
  {
    name: 'a copy that was killed',
    fails: false,
    prepare: async (image, directory) => {
      await crashCopy(image, directory);
      const bytes = imageBytes();
      bytes.fill(0xaa, IMAGE_BYTES / 2 + 10, IMAGE_BYTES / 2 + 110);
      return bytes;
    },
  },
];

/** Whether strace can trace here: a container may forbid it. */
const traces = toolPath('strace') !== undefined && spawnSync('strace', ['-qq', '-o', '/dev/null', 'true']).status === 0;

describeWith(['strace'], 'the command', () => {
  describe.skipIf(!traces).each(stories)('with $name', ({ prepare, fails }) => {
    test.each(Object.entries(CALLS))('outlives a kill or an error at each %s', async (call, errors) => {
      const image = makeImage(temporaryDirectory());
      const template = temporaryDirectory();
      const expected = await prepare(image, template);
      const fresh = (): string => {
        const directory = temporaryDirectory();
        cpSync(template, directory, { recursive: true, filter: (path) => !path.endsWith('alive') });
        return directory;
      };
      const count = await countCalls(fresh(), image, call);
      const faults = Array.from({ length: count }, (_, index) => index + 1).flatMap((when) =>
        ['signal=KILL', ...(fails ? errors : []).map((error) => `error=${error}`)].map(
          (fault) => `${call}:${fault}:when=${when}`,
        ),
      );
      const digest = createHash('sha256').update(expected).digest('hex');
      const outcomes = { killed: 0, failed: 0, unharmed: 0 };
      /** What goes wrong with a fault, if anything. */
      const wrongWith = async (fault: string): Promise<unknown> => {
        const directory = fresh();
        const options = ['-o', '/dev/null', '-e', `trace=${call}`, '-e', `inject=${fault}`];
        const target = join(directory, 'disk');
        const { exitCode, stderr } = await runTraced(directory, image, options);
        if (exitCode === 0) outcomes.unharmed++;
        else {
          if (fault.includes('KILL')) outcomes.killed++;
          else {
            outcomes.failed++;
            if (exitCode !== 1 || !/^(copyondemand: COD_.+\n)+$/.test(stderr)) return { exitCode, stderr };
          }
          // The last step had been made: what is there is the finished copy, and the digest confirms it.
          const isFinished = existsSync(target) && !readdirSync(directory).some((name) => /\.(bak|wil)/.test(name));
          const confirming = isFinished ? ['--sha256', digest] : [];
          const again = await runCommand(['copy', image, target, '--quiet', ...confirming]);
          if (again.exitCode !== 0 || again.stderr !== '') return { stderr, again };
        }
        // A lock that cannot be removed says that it is released.
        const left = readdirSync(directory).filter((name) => exitCode !== 0 || !name.startsWith('disk.lock'));
        if (left.join() !== 'disk') return { left };
        const isRight = Buffer.compare(readFileSync(target), expected) === 0;
        return isRight ? undefined : 'other bytes';
      };
      const wrong: unknown[] = [];
      const lane = async (): Promise<void> => {
        for (let fault = faults.shift(); fault !== undefined; fault = faults.shift()) {
          const what = await wrongWith(fault);
          if (what !== undefined) wrong.push({ fault, what });
        }
      };
      await Promise.all(Array.from({ length: LANES }, lane));
      expect(wrong).toEqual([]);
      console.log(`${call}: ${count} calls, ${JSON.stringify(outcomes)}`);
      if (count > 0) expect(outcomes.killed).toBeGreaterThan(0);
    });
  });
});
