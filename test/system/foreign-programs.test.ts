/** A copy as other programs see it: served by nginx, compared by qemu-img, checked by e2fsck. */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runCommand, runUntil } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { describeWith, toolPath } from '../support/tools.ts';

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(toolPath(program) ?? program, args, { encoding: 'utf8' });
  expect(status, `${program} ${args.join(' ')}: ${stdout}${stderr}`).toBe(0);
  return stdout;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** Serves `directory` with nginx on loopback until the end of the test. */
async function serveByNginx(directory: string): Promise<string> {
  const scratch = temporaryDirectory();
  const port = await freePort();
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${scratch}/${kind};`,
  );
  const configuration = join(scratch, 'nginx.conf');
  writeFileSync(
    configuration,
    `daemon off; master_process off; pid ${scratch}/pid; error_log stderr notice; events {}
    http { access_log off; ${paths.join(' ')} server { listen 127.0.0.1:${port}; root ${directory}; } }`,
  );
  const nginx = spawn(toolPath('nginx')!, ['-c', configuration, '-e', 'stderr'], { stdio: 'ignore' });
  onTestFinished(() => {
    nginx.kill();
  });
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer !== undefined) return url;
    if (nginx.exitCode !== null) throw new Error(`nginx ended with ${nginx.exitCode}`);
  }
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
