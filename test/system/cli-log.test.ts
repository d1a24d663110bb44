/** `-v` and `--log` of `copy` and `serve`, and their lines under systemd. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { nbdSource } from '../../src/nbd.ts';
import { MAIN, runCommand } from '../cli/command.ts';
import { makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';

const LINE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warning|notice|info): \S/;

function linesOf(text: string): string[] {
  return text.trimEnd().split('\n');
}

test('serve tells what happens, on stderr and in a file', async () => {
  const directory = temporaryDirectory();
  const [target, log] = [join(directory, 'disk'), join(directory, 'log')];
  const flags = ['--socket', join(directory, 's'), '--rate', '1G', '-v', '--log', log];
  const served = await startServe(makeImage(directory), target, ...flags);
  await served.warns('disk: hydrated');
  const client = await nbdSource(served.uri);
  await client.read(new Uint8Array(4096), 0);
  await client.close();
  await served.warns('has disconnected');
  const { exitCode, stderr, stdout } = await served.stop();
  expect(exitCode).toBe(0);
  expect(stdout).toBe(`listening on ${served.uri}\n`);
  const events = [
    `info: ${target}: opened, 1 MiB, 0 bytes (0.0 %) synced, 0 dirty blocks, hydrating`,
    `info: ${target}: listening on ${served.uri}, export "", source ${join(directory, 'image')}`,
    `notice: ${target}: hydrated`,
    'info: export "": client on the unix socket has connected',
    /info: export "": client on the unix socket has disconnected after .* s: 1 reads \(4 KiB\), 0 writes \(0 bytes\)/,
    'notice: copyondemand: SIGTERM: ends in order; a second signal ends it at once',
    `info: ${target}: closed`,
  ];
  for (const text of [stderr, readFileSync(log, 'utf8')]) {
    expect(linesOf(text).filter((line) => !LINE.test(line))).toEqual([]);
    for (const event of events)
      if (typeof event === 'string') expect(text).toContain(`${event}\n`);
      else expect(text).toMatch(event);
  }
});

test('a copy and its error are in the file, after the lines of the run before', async () => {
  const directory = temporaryDirectory();
  const [image, target, log] = [makeImage(directory), join(directory, 'disk'), join(directory, 'log')];
  expect(await runCommand(['copy', image, target, '--log', log, '--quiet'])).toMatchObject({ exitCode: 0, stderr: '' });
  const failed = await runCommand(['copy', join(directory, 'none'), join(directory, 'other'), '--log', log]);
  expect(failed.exitCode).toBe(1);
  const lines = linesOf(readFileSync(log, 'utf8'));
  expect(lines.filter((line) => !LINE.test(line))).toEqual([]);
  expect(lines.some((line) => line.endsWith(`${target}: hydrated`))).toBe(true);
  expect(lines.at(-1)).toContain(`error: COD_NOT_FOUND: ${join(directory, 'none')}`);
  expect(failed.stderr).toBe(`copyondemand: ${lines.at(-1)!.slice(lines.at(-1)!.indexOf('COD_'))}\n`);
});

test('the lines tell of a source that goes away and returns, and no secret', async () => {
  const directory = temporaryDirectory();
  const [target, log] = [join(directory, 'disk'), join(directory, 'log')];
  const image = makeImage(directory);
  const server = await serveFile(image);
  const port = Number(new URL(server.url).port);
  const source = `${server.url.replace('http://', 'http://anna:geheim@')}?signature=geheim`;
  const header = ['--header', 'X-Token: geheim'];
  const served = await startServe(
    source,
    target,
    '--socket',
    join(directory, 's'),
    '--rate',
    '64k',
    '-v',
    '--log',
    log,
    ...header,
  );
  await server.close();
  await served.warns('failed, the next one in');
  const again = await serveFile(image, { port });
  await served.warns('recovered: the copy continues');
  const { stderr } = await served.stop();
  await again.close();
  for (const text of [stderr, readFileSync(log, 'utf8')]) {
    expect(text).toMatch(/warning: .*disk: COD_SOURCE_IO: .*; attempt 1 failed, the next one in \d+\.\d{3} s\n/);
    expect(text).toContain(`notice: ${target}: recovered: the copy continues\n`);
    expect(text).not.toContain('geheim');
  }
});

test('a full disk under the log does not harm the copy', async () => {
  const directory = temporaryDirectory();
  const [image, target] = [makeImage(directory), join(directory, 'disk')];
  const { exitCode, stderr } = await runCommand(['copy', image, target, '--log', '/dev/full', '--quiet']);
  expect(exitCode).toBe(0);
  expect(stderr).toMatch(/^copyondemand: --log \/dev\/full: ENOSPC.*; lines are lost until it can be written\n$/);
  expect(readFileSync(target)).toEqual(readFileSync(image));
});

test.each([
  ['no events', [], [/^<5>.*disk: complete, /, /^<3>copyondemand: COD_NOT_FOUND: /]],
  ['events', ['-v'], [/^<6>.*disk: opened, /, /^<5>.*disk: hydrated$/, /^<3>copyondemand: COD_NOT_FOUND: /]],
])('under systemd, stderr with %s has priorities and no time', async (_, flags, expected) => {
  const directory = temporaryDirectory();
  const [image, target, path] = [makeImage(directory), join(directory, 'disk'), join(directory, 'journal')];
  const fd = openSync(path, 'a');
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const run = async (...args: string[]): Promise<void> => {
    const env = { ...process.env, JOURNAL_STREAM: `${dev}:${ino}` };
    const child = spawn(process.execPath, [MAIN, ...args, ...flags], { stdio: ['ignore', 'ignore', fd], env });
    await once(child, 'close');
  };
  await run('copy', image, target);
  await run('copy', join(directory, 'none'), join(directory, 'other'));
  closeSync(fd);
  const lines = linesOf(readFileSync(path, 'utf8'));
  expect(lines.filter((line) => !/^<[3-6]>[^<]/.test(line) || /\dT\d\d:/.test(line))).toEqual([]);
  for (const pattern of expected) expect(lines.some((line) => pattern.test(line))).toBe(true);
});

test('an image is no log', async () => {
  const directory = temporaryDirectory();
  const [image, precious] = [makeImage(directory), join(directory, 'precious')];
  writeFileSync(precious, 'precious');
  const { exitCode, stderr } = await runCommand(['copy', image, join(directory, 'disk'), '--log', precious]);
  expect(exitCode).toBe(1);
  expect(stderr).toBe(`copyondemand: COD_EXISTS: ${precious} is not a log of this program: name another file\n`);
  expect(readFileSync(precious, 'utf8')).toBe('precious');
});
