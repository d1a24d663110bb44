/** A copy as other programs see it: served by nginx, compared by qemu-img, checked by e2fsck. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { httpSource } from '../../src/sources/http/source.ts';
import type { RetryReport } from '../../src/sources/retry.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { runCommand, runUntil } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { freePort, startNginx } from '../support/nginx.ts';
import { describeWith, toolPath } from '../support/tools.ts';

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(toolPath(program) ?? program, args, { encoding: 'utf8' });
  expect(status, `${program} ${args.join(' ')}: ${stdout}${stderr}`).toBe(0);
  return stdout;
}

/** Serves `directory` with nginx on loopback until the end of the test. `settings` are of the server. */
async function serveByNginx(directory: string, settings = ''): Promise<string> {
  const port = await freePort();
  const nginx = await startNginx(
    temporaryDirectory(),
    port,
    `access_log off; limit_conn_zone $server_name zone=all:1m;
    server { listen 127.0.0.1:${port}; root ${directory}; ${settings} }`,
  );
  onTestFinished(() => nginx.kill());
  return nginx.url;
}

describeWith(['nginx', 'qemu-img', 'mke2fs', 'e2fsck'], 'a copy of an image with an ext4 file system', () => {
  test('from nginx, killed and resumed, is equal for qemu-img and clean for e2fsck', async () => {
    const directory = temporaryDirectory();
    const files = join(directory, 'files');
    mkdirSync(files);
    for (let index = 0; index < 50; index++) writeFileSync(join(files, `file-${index}`), `${index}\n`.repeat(40_000));
    const image = join(directory, 'disk.raw');
    run('mke2fs', '-q', '-t', 'ext4', '-d', files, image, '96M');
    const source = `${await serveByNginx(directory)}/disk.raw`;
    const target = join(directory, 'copy.raw');
    const killed = await runUntil(
      ['copy', source, target, '--rate', '64M'],
      'SIGKILL',
      (event) => event.event === 'progress',
    );
    expect(killed.signal, killed.stdout + killed.stderr).toBe('SIGKILL');
    const { exitCode, stderr } = await runCommand(['copy', source, target, '--quiet']);
    expect([exitCode, stderr]).toEqual([0, '']);
    run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, target);
    run('e2fsck', '-f', '-n', target);
  });
});

describeWith(['nginx'], 'a source that nginx serves', () => {
  const IMAGE = seededRandom(1).fill(new Uint8Array(64 * 2 ** 20));

  function files(): string {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'disk.raw'), IMAGE);
    return directory;
  }

  test('over one connection only is read by a reader first; the stream gives way and is resumed', async () => {
    const url = await serveByNginx(files(), 'limit_conn all 1; limit_rate 8m;');
    const delays: number[] = [];
    const onRetry = ({ delayMs }: RetryReport) => delays.push(delayMs);
    await using source = await httpSource(`${url}/disk.raw`, { retry: { onRetry } });
    const stream = source.stream!(0, 2 ** 24);
    const pieces = [(await stream.next()).value!.slice()];
    const sector = new Uint8Array(512);
    await source.read(sector, 2 ** 25);
    expectBytes(sector, IMAGE.subarray(2 ** 25, 2 ** 25 + 512));
    for await (const piece of stream) pieces.push(piece.slice());
    expectBytes(Buffer.concat(pieces), IMAGE.subarray(0, 2 ** 24));
    // nginx may notice the end of a connection a moment later.
    expect(delays.length).toBeLessThanOrEqual(4);
  });

  test('under another URL is read where its redirect leads', async () => {
    const url = await serveByNginx(files(), 'location /old { return 302 /disk.raw; }');
    await using source = await httpSource(`${url}/old`);
    const into = new Uint8Array(IMAGE.length);
    await source.read(into, 0);
    expectBytes(into, IMAGE);
  });

  test('and refuses is quoted', async () => {
    const url = await serveByNginx(files(), 'location /disk.raw { deny all; }');
    await expect(httpSource(`${url}/disk.raw?key=hunter2`)).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringMatching(/^GET [^ ]+\/disk\.raw\?…, bytes 0-0: 403, .*; the server says "403 Forbidden"$/),
    });
  });
});
