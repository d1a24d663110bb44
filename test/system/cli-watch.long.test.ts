/** `status --watch` on a terminal. */

import { existsSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { MAIN, type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { type OnTerminal, onTerminal } from '../support/terminal.ts';
import { describeWith } from '../support/tools.ts';

interface Served {
  readonly directory: string;
  readonly target: string;
  readonly server: Running;
}

/** Serves a copy that takes minutes, or the copy that exists. */
async function serve(directory = temporaryDirectory(), ...flags: string[]): Promise<Served> {
  const [source, target] = [join(directory, 'source'), join(directory, 'disk')];
  if (!existsSync(source)) writeFileSync(source, new Uint8Array(2 ** 24).fill(1));
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const args = ['serve', source, target, '--socket', join(directory, 's'), ...flags];
  const server = startCommand(args, { onLine: () => listening() });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await ready;
  return { directory, target, server };
}

/** Has colours by default, also if the tests run without them. */
function watch(target: string, env: NodeJS.ProcessEnv = {}): OnTerminal {
  return onTerminal([process.execPath, MAIN, 'status', target, '--watch'], { NO_COLOR: '', ...env });
}

const SLOW = ['--rate', '64k'];

describeWith(['python3'], 'status --watch on a terminal', () => {
  test('draws the map, figures and state in place, until q', async () => {
    const { target, server } = await serve(undefined, ...SLOW);
    const watching = watch(target);
    const text = await watching.until((shown) => shown.includes('users'));
    expect(text).toMatch(new RegExp(`^${target}: copying\n`));
    expect(text).toMatch(/^copied {4}[█░]+ \d\.\d %, .* of 16 MiB$/m);
    expect(text).toMatch(/^copy {6}.*\/s, at most 64 KiB\/s, .*left.*$/m);
    expect(text).toMatch(/^users {5}0 reads\/s, 0 writes\/s, 0 flushes\/s$/m);
    expect(text).toMatch(/^clients {3}0$/m);
    expect(text).toMatch(new RegExp(`^owner {5}process ${server.child.pid}, since \\d+ s ago$`, 'm'));
    expect(text).toMatch(/^ {2}[█▒░]{76}$/m);
    expect(await runCommand(['pause', target])).toMatchObject({ exitCode: 0 });
    const paused = await watching.until((shown) => shown.includes(': paused'));
    // One screen, and not one below the other.
    expect(paused.split(`${target}:`)).toHaveLength(2);
    watching.keys('q');
    expect(await watching.ended).toEqual({ status: 0, restored: true });
    expect(watching.screen.unknown).toEqual([]);
    expect(watching.output()).toContain('\x1b[32m');
    expect(watching.output().endsWith('\x1b[J\r')).toBe(true);
  });

  test('has no colours with NO_COLOR, and plain lines on a dumb terminal', async () => {
    const { target, server } = await serve(undefined, ...SLOW);
    const plain = watch(target, { NO_COLOR: '1' });
    await plain.until((shown) => shown.includes('q leaves'));
    plain.keys('\x03');
    expect(await plain.ended).toEqual({ status: 0, restored: true });
    for (const code of [0, 32, 36, 90]) expect(plain.output()).not.toContain(`\x1b[${code}m`);
    const dumb = watch(target, { TERM: 'dumb' });
    await dumb.until((shown) => shown.includes('hydrating, process'));
    server.child.kill('SIGKILL');
    await dumb.until((shown) => shown.includes('no process owns it'));
    expect(await dumb.ended).toMatchObject({ status: 0 });
    expect(dumb.output()).not.toContain('\x1b');
  });

  test('waits for the next owner, and ends when a complete copy has none', async () => {
    const { directory, target, server } = await serve(undefined, ...SLOW);
    const watching = watch(target);
    await watching.until((shown) => shown.includes(`process ${server.child.pid}`));
    server.child.kill('SIGSTOP');
    await watching.until((shown) => shown.replace(/\s/g, '').includes('doesnotanswer'));
    server.child.kill('SIGKILL');
    const gone = await watching.until((shown) => shown.includes('no process owns it'));
    expect(gone).toMatch(/^ {2}[█▒░]{76}$/m);
    const next = await serve(directory);
    await watching.until((shown) => shown.includes(': complete'));
    next.server.child.kill('SIGTERM');
    await watching.until((shown) => shown.includes('no process owns it'));
    expect(await watching.ended).toEqual({ status: 0, restored: true });
  }, 60_000);

  test('ends when the copy was finished', async () => {
    const { target, server } = await serve();
    const watching = watch(target);
    await watching.until((shown) => shown.includes(': complete'));
    server.child.kill('SIGSTOP');
    await watching.until((shown) => shown.replace(/\s/g, '').includes('doesnotanswer'));
    watching.kill(constants.signals.SIGSTOP);
    server.child.kill('SIGCONT');
    server.child.kill('SIGTERM');
    await server.result;
    expect(await runCommand(['finish', target])).toMatchObject({ exitCode: 0 });
    watching.kill(constants.signals.SIGCONT);
    expect(await watching.ended).toEqual({ status: 0, restored: true });
    expect(watching.screen.text).toContain(`${target}: complete, and its process has ended`);
  }, 60_000);

  test('is drawn anew in another size', async () => {
    const { target } = await serve(undefined, ...SLOW);
    const watching = watch(target);
    await watching.until((shown) => shown.includes('q leaves'));
    watching.resize(12, 40);
    const small = await watching.until((shown) => /^ {2}[█▒░]{36}\nq leaves$/m.test(shown));
    for (const line of small.split('\n')) expect(line.length).toBeLessThanOrEqual(40);
    expect(small.split('\n').length).toBeLessThanOrEqual(12);
    watching.resize(5, 20);
    await watching.until((shown) => shown.split('\n').every((line) => line.length <= 20));
    watching.keys('q');
    expect(await watching.ended).toEqual({ status: 0, restored: true });
  });

  test.each(['SIGTERM', 'SIGHUP', 'SIGINT'] as const)('leaves the terminal as it was after %s', async (name) => {
    const { target } = await serve(undefined, ...SLOW);
    const watching = watch(target);
    await watching.until((shown) => shown.includes('q leaves'));
    const signal = constants.signals[name];
    watching.kill(signal);
    expect(await watching.ended).toEqual({ status: name === 'SIGINT' ? 0 : -signal, restored: true });
    expect(watching.screen.unknown).toEqual([]);
  });

  test('what is no copy is an error', async () => {
    const watching = watch(join(temporaryDirectory(), 'disk'));
    expect(await watching.ended).toEqual({ status: 1, restored: true });
    expect(watching.screen.text).toMatch(/^copyondemand: COD_NOT_FOUND: /);
  });
});
