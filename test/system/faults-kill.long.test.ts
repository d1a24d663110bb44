/** A process that is killed many times while it uses a device on the files of this machine. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bundleForNode } from '../support/bundle.ts';
import { expectBytes } from '../support/bytes.ts';
import {
  type LoadOperation,
  type LoadOrder,
  loadOperation,
  SECTOR_BYTES,
  writesSectors,
} from '../support/kill-load.ts';

const LIVES = Number(process.env['COD_KILL_LIVES'] ?? 100);
const SIZE = 12 * 2 ** 20 + 777;
const USERS = 3;

type Change = Extract<LoadOperation, { bytes: Uint8Array }>;

/**
 * The expected contents: every acknowledged write. A unit of a write in flight may be old or new. The unit is a sector
 * for users that write sectors. It is a byte for other users, because only the written part of a sector is on the
 * target.
 */
class Promised {
  readonly bytes: Uint8Array;
  readonly #inFlight = new Map<number, Change & { readonly unit: number }>();
  acknowledged = 0;
  cutShort = 0;

  constructor(source: Uint8Array) {
    this.bytes = source.slice();
  }

  take(line: string, order: LoadOrder): void {
    const [event, user, index] = line.split(' ');
    if (event !== 'begin' && event !== 'done') return;
    const operation = loadOperation(order, Number(user), Number(index));
    if (!('bytes' in operation)) return;
    if (event === 'begin') {
      this.#inFlight.set(Number(user), { ...operation, unit: writesSectors(order, Number(user)) ? SECTOR_BYTES : 1 });
      return;
    }
    this.#inFlight.delete(Number(user));
    this.bytes.set(operation.bytes, operation.offset);
    this.acknowledged++;
  }

  /** Compares the contents found. For writes in flight, the contents found are the expected contents from now on. */
  expect(found: Uint8Array): void {
    for (const { offset, bytes, unit } of this.#inFlight.values()) {
      this.cutShort++;
      for (let at = offset; at < offset + bytes.length; ) {
        const end = Math.min(offset + bytes.length, (Math.floor(at / unit) + 1) * unit);
        const after = bytes.subarray(at - offset, end - offset);
        if (Buffer.compare(found.subarray(at, end), after) === 0) this.bytes.set(after, at);
        at = end;
      }
    }
    this.#inFlight.clear();
    expectBytes(found, this.bytes);
  }
}

/** Starts one process and kills it `afterMs` after it has printed `moment` and then `afterLines` more lines. */
async function runAndKill(
  program: string,
  order: LoadOrder,
  kill: { moment: string; afterLines: number; afterMs: number },
  promised: Promised,
): Promise<void> {
  const child = spawn(process.execPath, [program, JSON.stringify(order)], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'close');
  let stderr = '';
  let linesUntilKill = -1;
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  createInterface(child.stdout).on('line', (line) => {
    promised.take(line, order);
    if (line === kill.moment) linesUntilKill = kill.afterLines;
    if (linesUntilKill-- === 0) void sleep(kill.afterMs).then(() => child.kill('SIGKILL'));
  });
  const [code, signal] = await ended;
  expect({ code, signal, stderr }).toEqual({ code: null, signal: 'SIGKILL', stderr: '' });
}

/** Reads a copy of the files, so that the state for the next process stays as it is. */
async function readElsewhere(directory: string, image: string): Promise<{ found: Uint8Array; syncedBlocks: number }> {
  const elsewhere = temporaryDirectory();
  cpSync(directory, elsewhere, { recursive: true, filter: (path) => !path.includes('.lock') });
  const source = await fileSource(image);
  const device = await openDevice({ source, fileSystem: nodeFileSystem(elsewhere), target: 'disk', hydrate: false });
  const { syncedBlocks } = device.status();
  const found = new Uint8Array(SIZE);
  await device.read(found, 0);
  await device.close();
  await source.close();
  rmSync(elsewhere, { recursive: true });
  return { found, syncedBlocks };
}

test(`a device keeps every acknowledged write when it is killed ${LIVES} times under load`, async () => {
  const seed = Number(process.env['COD_KILL_SEED'] ?? Date.now() % 2 ** 31);
  console.log(`replay: COD_KILL_SEED=${seed} npx vitest run --project long test/system/faults-kill.long.test.ts`);
  const program = await bundleForNode('kill-user.ts');
  const random = seededRandom(seed);
  const image = join(temporaryDirectory(), 'image');
  // Never zero, so that lost bytes are detected.
  const content = random.fill(new Uint8Array(SIZE)).map((byte) => byte | 1);
  writeFileSync(image, content);
  const promised = new Promised(content);
  const directory = temporaryDirectory();
  const synced: number[] = [];
  for (let life = 0; life < LIVES; life++) {
    const order = {
      source: image,
      target: join(directory, 'disk'),
      size: SIZE,
      users: USERS,
      seed,
      life,
      rateBytesPerSecond: 2 ** 18,
    };
    // A quarter of the processes are killed during recovery or soon after.
    const kill = random.oneIn(4)
      ? { moment: 'opening', afterLines: 0, afterMs: random.below(40) }
      : { moment: 'ready', afterLines: 50, afterMs: random.below(150) };
    await runAndKill(program, order, kill, promised);
    const { found, syncedBlocks } = await readElsewhere(directory, image);
    promised.expect(found);
    synced.push(syncedBlocks);
  }
  console.log(
    `${promised.acknowledged} changes acknowledged, ${promised.cutShort} cut short, blocks synced: ${synced.at(-1)}`,
  );
  expect(promised.acknowledged).toBeGreaterThan(10 * LIVES);
  expect(promised.cutShort).toBeGreaterThan(LIVES / 4);
  expect(
    synced.every((count, life) => life === 0 || count >= synced[life - 1]!),
    'no synced block is lost',
  ).toBe(true);

  const source = await fileSource(image);
  const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'disk' });
  await device.hydrated;
  await device.finish();
  await source.close();
  expect(readdirSync(directory)).toEqual(['disk']);
  expectBytes(new Uint8Array(readFileSync(join(directory, 'disk'))), promised.bytes);
});
