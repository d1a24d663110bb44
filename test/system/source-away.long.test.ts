/** Virtual machines run from an export while its source is away for five minutes. */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryDirectory } from '../cli/temporary.ts';
import { Guest, makeGuestImage, missingForGuests } from '../support/guest.ts';
import { runProgram, startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';

const MiB = 2 ** 20;
const AWAY_MS = 300_000;
/** Seconds. */
const LONG_ENOUGH = '900';
const tools = missingForGuests('qemu-io');
const name = 'a source that is away for five minutes';

describe.skipIf(tools.length > 0)(tools.length === 0 ? name : `${name} (missing: ${tools.join(', ')})`, () => {
  test('costs a guest no error for what is here, and with a long --timeout none at all', async () => {
    const directory = temporaryDirectory();
    const { path: image, sha256 } = makeGuestImage(directory, 9);
    let source = await serveFile(image);
    onTestFinished(() => source.close());
    const serve = async (disk: string, ...flags: string[]) => {
      const socket = join(directory, `${disk}.s`);
      const served = await startServe(source.url, join(directory, disk), '--socket', socket, ...flags);
      return { socket, served };
    };
    // The background copies reach only the first MiB before the source is away.
    const long = await serve('long', '--timeout', LONG_ENOUGH, '--rate', '64k');
    const short = await serve('short', '--timeout', '2', '--rate', '64k');

    // SeaBIOS waits for a virtio disk without a limit.
    const waiting = new Guest(long.socket, 'virtio-blk-pci');
    const working = new Guest(short.socket, 'virtio-blk-pci');
    await Promise.all([waiting.shell(), working.shell()]);
    const [offset, length] = [16 * MiB, MiB];
    for (const guest of [waiting, working]) expect(await guest.hash(offset, length)).toBe(sha256(offset, length));

    const { port } = new URL(source.url);
    await source.close();
    const backAt = performance.now() + AWAY_MS;
    const missing = waiting.hash(32 * MiB, MiB);
    missing.catch(() => undefined);
    while (performance.now() < backAt) {
      expect(await working.hash(offset, length)).toBe(sha256(offset, length));
      await sleep(10_000);
    }
    // Within its time limit the other server answers EIO for what is missing.
    const uri = `nbd+unix:///?socket=${short.socket}`;
    const read = await runProgram('qemu-io', '-r', '-f', 'raw', '-c', `read ${48 * MiB} 4096`, uri);
    expect(read.stdout + read.stderr).toContain('Input/output error');

    source = await serveFile(image, { port: Number(port) });
    expect(await missing).toBe(sha256(32 * MiB, MiB));
    expect(await working.hash(48 * MiB, MiB)).toBe(sha256(48 * MiB, MiB));
    for (const { served } of [long, short]) {
      await served.warns('still trying');
      await served.warns('the copy continues');
      const { exitCode, stderr } = await served.stop();
      expect(exitCode, stderr).toBe(0);
    }
  });
});
