/** A virtual machine boots from an export during the copy. The server is killed meanwhile. */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { Guest, makeGuestImage, missingForGuests } from '../support/guest.ts';
import { startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';

const MiB = 2 ** 20;

const missing = missingForGuests();
const name = 'a virtual machine';

describe.skipIf(missing.length > 0)(missing.length === 0 ? name : `${name} (missing: ${missing.join(', ')})`, () => {
  test('boots before the copy is complete, and reads correct bytes across a kill of the server', async () => {
    const directory = temporaryDirectory();
    const { path: image, sha256 } = makeGuestImage(directory, 8);
    const source = await serveFile(image, { bytesPerSecond: MiB, latencyMs: 10 });
    onTestFinished(() => source.close());
    const socket = join(directory, 's');
    const target = join(directory, 'disk');
    const command = [source.url, target, '--socket', socket, '--rate', '64k'];
    const first = await startServe(...command);

    const guest = new Guest(socket);
    await guest.shell();
    const { stdout } = await runCommand(['inspect', target, '--json']);
    const { syncedBlocks, totalBlocks } = JSON.parse(stdout) as { syncedBlocks: number; totalBlocks: number };
    expect(syncedBlocks).toBeLessThan(totalBlocks / 2);

    expect(await guest.hash(16 * MiB, MiB)).toBe(sha256(16 * MiB, MiB));

    const digest = guest.hash(32 * MiB, 4 * MiB);
    // Kill the server in the middle of the digest.
    const before = source.requests;
    while (source.requests < before + 5) await sleep(5);
    expect((await first.stop('SIGKILL')).signal).toBe('SIGKILL');
    await sleep(200);
    const second = await startServe(...command);
    expect(await digest).toBe(sha256(32 * MiB, 4 * MiB));
    expect(await guest.hash(16 * MiB, MiB)).toBe(sha256(16 * MiB, MiB));
    const { exitCode, stderr } = await second.stop();
    expect(exitCode, stderr).toBe(0);
  });
});
