/** Signals to `npm start`. npm runs a script through a shell, and the shell does not pass on every signal. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryDirectory } from '../cli/temporary.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** `npm start -- serve`, in a process group of its own. */
interface Started {
  readonly npm: ChildProcess;
  /** The process that owns the target, as the target's lock file names it. */
  readonly server: number;
  readonly folder: string;
}

async function start(): Promise<Started> {
  const folder = temporaryDirectory();
  writeFileSync(join(folder, 'image.raw'), Buffer.alloc(1 << 20, 'image'));
  const args = ['--prefix', root, 'start', '--', 'serve', 'image.raw', 'disk.raw', '--socket', 'nbd.sock'];
  const npm = spawn('npm', args, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  onTestFinished(() => {
    try {
      process.kill(-npm.pid!, 'SIGKILL');
    } catch {
      // The whole group has ended.
    }
  });
  await new Promise<void>((resolve, reject) => {
    npm.once('exit', (code) => reject(new Error(`npm ended with ${code}`)));
    createInterface(npm.stdout!).on('line', (line) => {
      if (line.startsWith('listening on ')) resolve();
    });
  });
  const { pid } = JSON.parse(readFileSync(join(folder, 'disk.raw.lock'), 'utf8')) as { pid: number };
  return { npm, server: pid, folder };
}

/** Whether a process runs. A zombie does not: its parent has not reaped it yet. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Waits for the end of npm, and of the server, which removes its lock and its socket when it ends in order. */
async function expectEnd({ npm, server, folder }: Started, end: (npm: number) => void): Promise<void> {
  const exit = once(npm, 'exit');
  end(npm.pid!);
  await exit;
  await expect.poll(() => isAlive(server), { timeout: 10_000 }).toBe(false);
  expect(existsSync(join(folder, 'disk.raw.bak')) || existsSync(join(folder, 'disk.raw.bak.1'))).toBe(true);
  expect(readdirSync(folder).filter((name) => /\.(lock(?!\.spare)|sock)/.test(name))).toEqual([]);
}

test('SIGTERM to npm ends the command in order', async () => {
  await expectEnd(await start(), (npm) => process.kill(npm, 'SIGTERM'));
});

test('SIGINT to the process group, as a terminal sends it, ends the command in order', async () => {
  await expectEnd(await start(), (npm) => process.kill(-npm, 'SIGINT'));
});

test('a killed npm does not leave the command behind', async () => {
  const started = await start();
  // Both npm and its shell: the command sees only that its parent has ended.
  const shell = Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${started.server}/status`, 'utf8'))![1]);
  await expectEnd(started, (npm) => {
    process.kill(npm, 'SIGKILL');
    if (shell !== npm) process.kill(shell, 'SIGKILL');
  });
});

test('the scripts of package.json run in cmd.exe too, which has no `exec`', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const shellOnly = /\bexec\b|[;$'`]|^\s*\w+=/;
  expect(Object.values(scripts).filter((line) => shellOnly.test(line))).toEqual([]);
});
