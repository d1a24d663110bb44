/** `copyondemand serve --config FILE`: many disks from one process, and SIGHUP. */

import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Source } from '../../src/index.ts';
import { nbdSource } from '../../src/nbd.ts';
import { type JsonEvent, type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { certify, makeAuthority } from '../support/certificates.ts';

const BYTES = 2 ** 24;

interface Disk {
  readonly name: string;
  readonly target: string;
  readonly [key: string]: unknown;
}

/** A directory with a configuration, and the process that serves it. */
class Served {
  readonly directory: string = temporaryDirectory();
  readonly events: JsonEvent[] = [];
  /** Options of the process. */
  listener: object = { socket: this.path('s') };
  running!: Running;
  #awaited: { readonly event: string; readonly resolve: (event: JsonEvent) => void }[] = [];

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Returns the entry of a disk that takes minutes to copy, of an image whose bytes are `byte`. */
  disk(name: string, byte: number, options: object = {}): Disk {
    const source = this.path(`${name}.source`);
    if (!existsSync(source)) writeFileSync(source, new Uint8Array(BYTES).fill(byte));
    return { name, source, target: this.path(name), rate: '64k', ...options };
  }

  write(...disks: object[]): void {
    writeFileSync(this.path('config'), JSON.stringify({ ...this.listener, disks }));
  }

  async start(...disks: object[]): Promise<JsonEvent> {
    this.write(...disks);
    this.running = startCommand(['serve', '--config', this.path('config'), '--json'], {
      onLine: (line) => this.#onEvent(JSON.parse(line) as JsonEvent),
    });
    onTestFinished(() => void this.running.child.kill('SIGKILL'));
    return this.next('ready');
  }

  /** Reloads, and returns the next event of this name. */
  reload(event = 'reloaded'): Promise<JsonEvent> {
    const next = this.next(event);
    this.running.child.kill('SIGHUP');
    return next;
  }

  next(event: string): Promise<JsonEvent> {
    return new Promise((resolve) => this.#awaited.push({ event, resolve }));
  }

  of(event: string): unknown[] {
    return this.events.filter((each) => each.event === event).map((each) => each['export']);
  }

  async client(name: string): Promise<Source> {
    const source = await nbdSource(`nbd+unix:///${name}?socket=${this.path('s')}`, { retry: { attempts: 1 } });
    onTestFinished(() => source.close());
    return source;
  }

  async status(name: string): Promise<Record<string, unknown>> {
    return JSON.parse((await runCommand(['status', this.path(name), '--json'])).stdout);
  }

  #onEvent(event: JsonEvent): void {
    this.events.push(event);
    const due = this.#awaited.filter((each) => each.event === event.event);
    this.#awaited = this.#awaited.filter((each) => !due.includes(each));
    for (const { resolve } of due) resolve(event);
  }
}

async function byteOf(source: Source, offset = 0): Promise<number> {
  const into = new Uint8Array(512);
  await source.read(into, offset);
  return into[0]!;
}

test('serves each disk under its name, and a disk that cannot be opened stops no other', async () => {
  const served = new Served();
  const away = { name: 'away', source: served.path('no.source'), target: served.path('away') };
  expect(await served.start(served.disk('a', 1), served.disk('b', 2), away)).toMatchObject({ disks: 3, serving: 2 });
  expect(await byteOf(await served.client('a'))).toBe(1);
  expect(await byteOf(await served.client('b'))).toBe(2);
  expect(await served.status('b')).toMatchObject({ pid: served.running.child.pid, clients: 1 });
  // Neither the disk that is not open, nor another one in its place.
  for (const name of ['away', '']) await expect(served.client(name)).rejects.toThrow();
  expect(served.events).toContainEqual(expect.objectContaining({ event: 'retry', export: 'away', attempt: 1 }));
  const listening = served.next('listening');
  writeFileSync(served.path('made'), new Uint8Array(BYTES).fill(3));
  renameSync(served.path('made'), away.source);
  expect(await listening).toMatchObject({ export: 'away' });
  expect(await byteOf(await served.client('away'))).toBe(3);
});

describe('the control socket', () => {
  async function controlled(): Promise<{ served: Served; ask: (...args: string[]) => ReturnType<typeof runCommand> }> {
    const served = new Served();
    served.listener = { socket: served.path('s'), control: served.path('control') };
    const away = { name: 'away', source: served.path('no.source'), target: served.path('away') };
    const elsewhere = served.disk('b', 2, { metadata: served.path('prefix') });
    await served.start(served.disk('a', 1), elsewhere, away);
    const ask = (command: string, ...args: string[]) =>
      runCommand([command, '--control', served.path('control'), ...args]);
    return { served, ask };
  }

  test('tells of all disks, and steers each by its name', async () => {
    const { served, ask } = await controlled();
    const { pid } = served.running.child;
    const all = await ask('status', '--json');
    const found = all.stdout.trim().split('\n');
    expect(found.map((line) => JSON.parse(line) as JsonEvent)).toMatchObject([
      { target: 'a', state: 'hydrating', pid },
      { target: 'b', state: 'hydrating', pid, metadata: served.path('prefix') },
      {
        target: 'away',
        pid: null,
        lastError: { code: 'COD_NOT_RUNNING', message: expect.stringContaining('no.source') },
      },
    ]);
    expect((await ask('status', 'b')).stdout).toContain(`b: hydrating, process ${pid}`);
    expect((await ask('pause', 'b')).stderr).toContain('b: paused');
    expect((await ask('set-rate', 'a', '32k')).stderr).toContain('at most 32 KiB/s');
    expect(await served.status('a')).toMatchObject({ state: 'hydrating', rateBytesPerSecond: 32_768 });
    const states = (await ask('status')).stdout.split('\n');
    expect(states[1]).toContain('b: paused');
    expect((await ask('resume', 'b')).stderr).toContain('b: hydrating');
    served.write(served.disk('new', 3));
    await served.reload();
    expect((await ask('status')).stdout).toMatch(/^new: hydrating, [^\n]*\n$/);
  });

  test.each([
    { args: ['status', 'other'], exitCode: 1, says: 'COD_NOT_FOUND: there is no disk "other" here' },
    { args: ['pause', 'away'], exitCode: 1, says: 'COD_NOT_RUNNING: away is not open' },
    { args: ['pause', 'a', '--metadata', 'm'], exitCode: 2, says: 'either --control or --metadata' },
    { args: ['status', '--metadata', 'm'], exitCode: 2, says: 'either --control or --metadata' },
  ])('refuses $args', async ({ args: [command, ...args], exitCode, says }) => {
    const { ask } = await controlled();
    const refused = await ask(command!, ...args);
    expect(refused.exitCode).toBe(exitCode);
    expect(refused.stderr).toContain(says);
  });

  test('without a process is COD_NOT_RUNNING, and without a name of it wrong usage', async () => {
    const socket = join(temporaryDirectory(), 'none');
    expect(await runCommand(['status', '--control', socket])).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('COD_NOT_RUNNING: no process can be asked at'),
    });
    expect(await runCommand(['status'])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('--control') });
  });

  test('is for its user alone, and bears silent clients and garbage', async () => {
    const { served, ask } = await controlled();
    const path = served.path('control');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const clients = Array.from({ length: 40 }, () => connect(path).on('error', () => undefined));
    onTestFinished(() => clients.forEach((client) => void client.destroy()));
    clients[0]!.write('x'.repeat(100_000));
    clients[1]!.write('{"disk":');
    clients[2]!.write('[]\nnull\n');
    await Promise.all(clients.map((client) => once(client.resume(), 'close')));
    expect((await ask('status', 'a')).stdout).toContain('a: hydrating');
    served.running.child.kill('SIGTERM');
    expect(await served.running.result).toMatchObject({ exitCode: 0 });
    expect(existsSync(path)).toBe(false);
  });

  test('is not taken from another file', async () => {
    const served = new Served();
    writeFileSync(served.path('control'), 'mine');
    served.listener = { socket: served.path('s'), control: served.path('control') };
    served.write(served.disk('a', 1));
    const refused = await runCommand(['serve', '--config', served.path('config')]);
    expect(refused).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('COD_EXISTS') });
    expect(readFileSync(served.path('control'), 'utf8')).toBe('mine');
    expect(existsSync(served.path('a'))).toBe(false);
  });
});

test('the commands steer one disk by its TARGET, and SIGUSR1 has a line for each', async () => {
  const served = new Served();
  await served.start(served.disk('a', 1), served.disk('b', 2));
  for (const args of [['pause'], ['set-rate', '128k']])
    expect(await runCommand([args[0]!, served.path('a'), ...args.slice(1)])).toMatchObject({ exitCode: 0 });
  expect(await served.status('a')).toMatchObject({ paused: true, rateBytesPerSecond: 131_072 });
  expect(await served.status('b')).toMatchObject({ paused: false, rateBytesPerSecond: 65_536 });
  expect(await runCommand(['snapshot', served.path('a'), served.path('copy')])).toMatchObject({ exitCode: 0 });
  const told = new Promise<string>((resolve) => {
    let text = '';
    served.running.child.stderr!.on('data', (part: string) => {
      text += part;
      if (text.split('\n').length === 3) resolve(text);
    });
  });
  served.running.child.kill('SIGUSR1');
  expect((await told).split('\n').map((line) => line.split(':')[0])).toEqual([served.path('a'), served.path('b'), '']);
});

test('SIGTERM takes a checkpoint of each disk, and ends with 0', async () => {
  const served = new Served();
  await served.start(...Array.from({ length: 20 }, (_, index) => served.disk(`d${index}`, index + 1)));
  const client = await served.client('d7');
  await byteOf(client, BYTES / 2);
  served.running.child.kill('SIGTERM');
  expect(await served.running.result).toMatchObject({ exitCode: 0, signal: null, stderr: '' });
  expect(served.of('closed')).toHaveLength(20);
  expect(served.events.at(-1)).toEqual({ event: 'done' });
  const { syncedBlocks, state } = await served.status('d7');
  expect([syncedBlocks !== 0, state]).toEqual([true, 'closed']);
});

describe('SIGHUP', () => {
  test('opens new disks, closes old ones, and does not touch the others', async () => {
    const served = new Served();
    const kept = served.disk('kept', 1);
    await served.start(kept, served.disk('old', 2), served.disk('moved', 3));
    const reader = await served.client('kept');
    const old = await served.client('old');
    await byteOf(old);
    let reads = 0;
    let isReading = true;
    const reading = (async () => {
      for (let offset = 0; isReading; offset = (offset + 65_536) % BYTES, reads++)
        expect(await byteOf(reader, offset)).toBe(1);
    })();
    served.write(kept, served.disk('moved', 3, { target: served.path('elsewhere') }), served.disk('new', 4));
    const listening = served.next('listening');
    expect(await served.reload()).toEqual({ event: 'reloaded', added: 1, removed: 1, reopened: 1, kept: 1 });
    const before = reads;
    await listening;
    while (served.of('listening').filter((name) => name === 'moved' || name === 'new').length < 3)
      await served.next('listening');
    expect(await byteOf(await served.client('new'))).toBe(4);
    expect(await byteOf(await served.client('moved'))).toBe(3);
    await expect(byteOf(old)).rejects.toThrow();
    await expect(served.client('old')).rejects.toThrow();
    while (reads <= before + 3) await served.status('kept');
    isReading = false;
    await reading;
    expect(await served.status('kept')).toMatchObject({ clients: 1, retries: 0 });
    expect(await served.status('old')).toMatchObject({ pid: null, state: 'closed' });
    expect(served.of('closed').sort()).toEqual(['moved', 'old']);
    expect(served.of('listening').filter((name) => name === 'kept')).toHaveLength(1);
  });

  test('changes the rates of a disk that stays open', async () => {
    const served = new Served();
    await served.start(served.disk('a', 1), served.disk('b', 2));
    const client = await served.client('a');
    served.write(served.disk('a', 1, { rate: '128k' }), served.disk('b', 2, { rate: 'unlimited' }));
    expect(await served.reload()).toMatchObject({ reopened: 0, kept: 2 });
    expect(await served.status('a')).toMatchObject({ rateBytesPerSecond: 131_072, clients: 1 });
    expect(await served.status('b')).toMatchObject({ rateBytesPerSecond: null });
    writeFileSync(served.path('rate'), '256k');
    served.write(served.disk('a', 1, { rateFile: served.path('rate') }));
    expect(await served.reload()).toMatchObject({ removed: 1, kept: 1 });
    expect(await served.status('a')).toMatchObject({ rateBytesPerSecond: 262_144 });
    expect(await byteOf(client)).toBe(1);
  });

  test('changes nothing, and says why, if the file is wrong', async () => {
    const served = new Served();
    await served.start(served.disk('a', 1));
    const client = await served.client('a');
    writeFileSync(served.path('config'), '{"disks": [}');
    expect(await served.reload('reload-failed')).toMatchObject({
      code: 'UsageError',
      message: expect.stringMatching(/:1:12: a value/),
    });
    served.write({ ...served.disk('a', 1), port: 1 });
    expect(await served.reload('reload-failed')).toMatchObject({
      message: expect.stringMatching(/"port": there is no such key/),
    });
    writeFileSync(served.path('config'), JSON.stringify({ socket: served.path('other'), disks: [] }));
    expect(await served.reload('reload-failed')).toMatchObject({
      message: expect.stringMatching(/restart the process to change "socket"/),
    });
    expect(await byteOf(client)).toBe(1);
    expect(served.of('closed')).toEqual([]);
    served.write();
    expect(await served.reload()).toMatchObject({ removed: 1, kept: 0 });
  });

  test('takes other certificates for new clients', async () => {
    const served = new Served();
    const [first, second] = ['first', 'second'].map((name) => served.path(name)) as [string, string];
    for (const directory of [first, second]) {
      await makeAuthority(directory, 'authority');
      await certify(directory, 'server', directory);
    }
    const [tlsCert, tlsKey] = [served.path('cert'), served.path('key')];
    const use = (directory: string): void => {
      copyFileSync(join(directory, 'server-cert.pem'), tlsCert);
      copyFileSync(join(directory, 'server-key.pem'), tlsKey);
    };
    use(first);
    served.listener = { port: 0, tlsCert, tlsKey };
    await served.start(served.disk('a', 1));
    const uri = String(served.events.find(({ event }) => event === 'listening')!['uri']);
    const client = async (directory: string): Promise<Source> => {
      const tls = { ca: readFileSync(join(directory, 'ca-cert.pem'), 'utf8') };
      const source = await nbdSource(uri, { tls, retry: { attempts: 1 } });
      onTestFinished(() => source.close());
      return source;
    };
    const before = await client(first);
    use(second);
    expect(await served.reload()).toMatchObject({ kept: 1 });
    expect(await byteOf(before)).toBe(1);
    expect(await byteOf(await client(second))).toBe(1);
    await expect(client(first)).rejects.toThrow();
  });

  test('passes a target on to another name', async () => {
    const served = new Served();
    const disk = served.disk('a', 1);
    await served.start(disk);
    const listening = served.next('listening');
    served.write({ ...disk, name: 'b' });
    await served.reload();
    expect(await listening).toMatchObject({ export: 'b' });
    expect(await byteOf(await served.client('b'))).toBe(1);
  });
});

test('people see a line for each event, and no progress', async () => {
  const served = new Served();
  const away = { name: 'away', source: served.path('no.source'), target: served.path('away') };
  served.write(served.disk('a', 1), away);
  const running = startCommand(['serve', '--config', served.path('config')]);
  onTestFinished(() => void running.child.kill('SIGKILL'));
  let seen = '';
  await new Promise<void>((resolve) => {
    running.child.stderr!.on('data', (text: string) => {
      seen += text;
      if (seen.includes('copyondemand: serving ')) resolve();
    });
  });
  running.child.kill('SIGTERM');
  const { stdout, stderr, exitCode } = await running.result;
  expect([stdout, exitCode]).toEqual([`listening on nbd+unix:///a?socket=${served.path('s')}\n`, 0]);
  expect(stderr.split('\n')).toEqual([
    expect.stringMatching(`^${away.target}: COD_NOT_FOUND: .*; still trying$`),
    `copyondemand: serving 1 of 2 disks of ${served.path('config')}`,
    '',
  ]);
});

test.each([
  ['no file', [], 1, 'COD_NOT_FOUND'],
  ['SOURCE beside it', ['a'], 2, '--config names SOURCE and TARGET in its file'],
  ['an option of a disk beside it', ['--rate', '1M'], 2, '"rate" stands in the file of --config, as a key'],
  ['an option that turns something off', ['--no-hydrate'], 2, '"hydrate" stands in the file of --config, as a key'],
])('%s is refused', async (_, args, exitCode, message) => {
  const path = join(temporaryDirectory(), 'config');
  const result = await runCommand(['serve', '--config', path, ...args]);
  expect(result).toMatchObject({ exitCode, stderr: expect.stringContaining(message) });
});

test('a file that is wrong is wrong usage, and nothing is opened', async () => {
  const directory = temporaryDirectory();
  const path = join(directory, 'config');
  mkdirSync(join(directory, 'targets'));
  const disks = [
    { name: 'a', source: path, target: join(directory, 'targets', 'a') },
    { name: 'a', source: path, target: join(directory, 'targets', 'b') },
  ];
  writeFileSync(path, JSON.stringify({ socket: join(directory, 's'), disks }));
  const result = await runCommand(['serve', '--config', path]);
  expect(result).toMatchObject({ exitCode: 2, stdout: '' });
  expect(result.stderr).toBe(`copyondemand: ${path}:1: disks[1] "a": it has the name of disks[0], "a"\n`);
  expect(existsSync(join(directory, 'targets', 'a'))).toBe(false);
});

test('serve needs a TARGET or --config', async () => {
  const { exitCode, stderr } = await runCommand(['serve']);
  expect([exitCode, stderr]).toEqual([2, expect.stringContaining("missing required argument 'source', or --config")]);
});

test('the example is a valid file', async () => {
  const { parseConfig } = await import('../../src/cli/config-file.ts');
  const path = 'examples/many-disks/disks.jsonc';
  expect(parseConfig(readFileSync(path, 'utf8'), path).disks.map(({ name }) => name)).toEqual(['web', 'db', 'scratch']);
});
