/** Manifests in the command: what `manifest` writes, and that `copy` and `serve` use nothing that does not match. */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bytesSource, createManifest, readManifest } from '../../src/index.ts';
import { nbdSource } from '../../src/nbd.ts';
import { eventsOf, runCommand, runUntil, startCommand } from '../cli/command.ts';
import { imageBytes, makeImage, makeSparse } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { HostileServer } from '../support/http-server.ts';
import { serveFile } from '../support/range-server.ts';
import { haveTool, toolPath } from '../support/tools.ts';

test('writes the manifest of a path or a URL, prints its root, and replaces an older one', async () => {
  const directory = temporaryDirectory();
  makeImage(directory);
  const { root, bytes } = await createManifest(bytesSource(imageBytes()));
  const first = await runCommand(['manifest', 'image', 'image.manifest'], { cwd: directory });
  expect(first).toMatchObject({
    exitCode: 0,
    stdout: `${root}\n`,
    stderr: 'image.manifest: manifest of 1 MiB\n',
  });
  expect(new Uint8Array(readFileSync(join(directory, 'image.manifest')))).toEqual(bytes);

  makeImage(directory, 'image', 2);
  const server = await HostileServer.start(imageBytes(2));
  onTestFinished(() => server.stop());
  const again = await runCommand(['manifest', server.url, 'image.manifest', '--json'], { cwd: directory });
  const other = await createManifest(bytesSource(imageBytes(2)));
  expect(again).toMatchObject({ exitCode: 0, stderr: '' });
  expect(eventsOf(again).at(-1)).toEqual({
    event: 'done',
    file: 'image.manifest',
    root: other.root,
    size: 2 ** 20,
    extentBytes: 65_536,
  });
  expect(new Uint8Array(readFileSync(join(directory, 'image.manifest')))).toEqual(other.bytes);
  expect(readdirSync(directory)).toEqual(['image', 'image.manifest']);
});

test.skipIf(!haveTool('qemu-img'))('a qcow2 image has the manifest of its disk', async () => {
  const directory = temporaryDirectory();
  makeImage(directory);
  const convert = ['convert', '-O', 'qcow2', join(directory, 'image'), join(directory, 'image.qcow2')];
  execFileSync(toolPath('qemu-img')!, convert);
  const raw = await runCommand(['manifest', 'image', 'a'], { cwd: directory });
  const qcow2 = await runCommand(['manifest', 'image.qcow2', 'b', '--quiet'], { cwd: directory });
  expect(qcow2).toMatchObject({ exitCode: 0, stdout: raw.stdout, stderr: '' });
});

test('an interruption leaves nothing', async () => {
  const directory = temporaryDirectory();
  const image = makeSparse(join(directory, 'image'), 2 ** 30);
  const server = await serveFile(image, { bytesPerSecond: 2 ** 24 });
  onTestFinished(() => server.close());
  const target = join(directory, 'm');
  const result = await runUntil(['manifest', server.url, target], 'SIGINT', ({ event }) => event === 'progress');
  expect(result.exitCode).toBe(130);
  expect(readdirSync(directory)).toEqual(['image']);
});

test.each([
  { name: 'a source that is missing', args: ['nothing', 'm'], exitCode: 1, code: 'COD_NOT_FOUND' },
  { name: 'an empty image', args: ['empty', 'm'], exitCode: 1, code: 'COD_SIZE_MISMATCH' },
  { name: 'a file of another kind as FILE', args: ['image', 'other'], exitCode: 1, code: 'COD_EXISTS' },
  { name: 'the image as FILE', args: ['image', 'image'], exitCode: 1, code: 'COD_EXISTS' },
  { name: 'an empty FILE', args: ['image', 'empty'], exitCode: 1, code: 'COD_EXISTS' },
  { name: 'a directory that is missing', args: ['image', 'none/m'], exitCode: 1, code: 'COD_NOT_FOUND' },
  { name: 'no path for FILE', args: ['image', ''], exitCode: 2, code: 'UsageError' },
  { name: 'an option of another source', args: ['image', 'm', '--netrc'], exitCode: 2, code: 'UsageError' },
  { name: 'an archive', args: ['zip', 'm'], exitCode: 1, code: 'COD_UNSUPPORTED' },
])('refuses $name', async ({ args, exitCode, code }) => {
  const directory = temporaryDirectory();
  makeImage(directory);
  makeSparse(join(directory, 'empty'), 0);
  writeFileSync(join(directory, 'other'), 'precious');
  writeFileSync(join(directory, 'zip'), Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(1000)]));
  const before = readdirSync(directory);
  const result = await runCommand(['manifest', ...args, '--json'], { cwd: directory });
  expect(result.exitCode).toBe(exitCode);
  expect(result.stderr).toMatch(/^copyondemand: .+\n$/);
  expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
  expect(readdirSync(directory)).toEqual(before);
  expect(readFileSync(join(directory, 'other'), 'utf8')).toBe('precious');
});

test('the manifest can be read by its owner and others as any file, and is read as the library reads it', async () => {
  const directory = temporaryDirectory();
  makeImage(directory);
  await runCommand(['manifest', 'image', 'm'], { cwd: directory });
  expect(statSync(join(directory, 'm')).mode & 0o777).toBe(0o666 & ~process.umask());
  const manifest = await readManifest(bytesSource(readFileSync(join(directory, 'm'))), { size: 2 ** 20 });
  expect(manifest.extentBytes).toBe(65_536);
});

describe('a proxy that turns over a bit', () => {
  const WRONG = 9 * 65_536 + 5;

  /** Serves the image, and lies `lies` times. */
  async function lyingProxy(directory: string, lies: number) {
    makeImage(directory);
    await runCommand(['manifest', 'image', 'm'], { cwd: directory });
    const proxy = { lies, url: '' };
    const image = imageBytes();
    const server = await HostileServer.start(image, (ask) => {
      const body = image.slice(ask.start, ask.end);
      if (WRONG >= ask.start && WRONG < ask.end && proxy.lies-- > 0) body[WRONG - ask.start]! ^= 0x80;
      ask.send({ body });
    });
    onTestFinished(() => server.stop());
    proxy.url = server.url;
    return proxy;
  }

  test('once is found by the copy, which asks again', async () => {
    const directory = temporaryDirectory();
    const { url } = await lyingProxy(directory, 1);
    const result = await runCommand(['copy', url, 'disk', '--manifest', 'm', '--json'], { cwd: directory });
    expect(result.exitCode).toBe(0);
    expect(eventsOf(result).filter(({ event }) => event === 'retry')).toMatchObject([{ code: 'COD_MISMATCH' }]);
    expectBytes(readFileSync(join(directory, 'disk')), imageBytes());
  });

  test('each time ends the copy with COD_MISMATCH, and the same command resumes when the lies end', async () => {
    const directory = temporaryDirectory();
    const proxy = await lyingProxy(directory, Number.POSITIVE_INFINITY);
    const command = ['copy', proxy.url, 'disk', '--manifest', 'm', '--json'];
    const result = await runCommand(command, { cwd: directory });
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toMatch(/copyondemand: COD_MISMATCH: bytes 589824-655359 of the source .+\n$/);
    expect(eventsOf(result).at(-1)).toMatchObject({ event: 'error', code: 'COD_MISMATCH' });
    const stored = readFileSync(join(directory, 'disk')).subarray(9 * 65_536, 10 * 65_536);
    expectBytes(stored, new Uint8Array(65_536));
    proxy.lies = 0;
    expect(await runCommand(command, { cwd: directory })).toMatchObject({ exitCode: 0 });
    expectBytes(readFileSync(join(directory, 'disk')), imageBytes());
  });

  test('at one mirror makes the copy continue at another', async () => {
    const directory = temporaryDirectory();
    makeImage(directory);
    await runCommand(['manifest', 'image', 'm'], { cwd: directory });
    const image = imageBytes();
    let visits = 0;
    const server = await HostileServer.start(image, ({ path, start, end, send }) => {
      if (path === '/disk.img') {
        const location = visits++ === 0 ? '/lying/disk.img' : '/honest/disk.img';
        return send({ status: 302, headers: { location, 'content-range': undefined }, body: '' });
      }
      const body = image.slice(start, end);
      if (path.startsWith('/lying') && WRONG >= start && WRONG < end) body[WRONG - start]! ^= 0x80;
      return send({ body });
    });
    onTestFinished(() => server.stop());
    const result = await runCommand(['copy', server.url, 'disk', '--manifest', 'm', '--json'], { cwd: directory });
    expect(result.exitCode).toBe(0);
    expect(eventsOf(result)).toContainEqual(expect.objectContaining({ event: 'retry', code: 'COD_MISMATCH' }));
    expectBytes(readFileSync(join(directory, 'disk')), image);
  });

  test('is found by a cold read of 4 KiB of a client of serve', async () => {
    const directory = temporaryDirectory();
    const proxy = await lyingProxy(directory, Number.POSITIVE_INFINITY);
    const options = ['--manifest', 'm', '--no-hydrate', '--timeout', '1', '--socket', 's'];
    let ready = (): void => undefined;
    const listening = new Promise<void>((resolve) => (ready = resolve));
    const server = startCommand(['serve', proxy.url, 'disk', ...options], { cwd: directory, onLine: () => ready() });
    onTestFinished(() => void server.child.kill('SIGKILL'));
    await listening;
    const client = await nbdSource(`nbd+unix:///?socket=${join(directory, 's')}`, { retry: { attempts: 1 } });
    onTestFinished(() => client.close());
    const sector = new Uint8Array(4096);
    await client.read(sector, 0);
    expectBytes(sector, imageBytes().subarray(0, 4096));
    await expect(client.read(sector, 9 * 65_536 + 8192)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    proxy.lies = 0;
    await client.read(sector, 9 * 65_536 + 8192);
    expectBytes(
      sector,
      imageBytes()
        .subarray(9 * 65_536 + 8192)
        .subarray(0, 4096),
    );
  });
});

test('a source without identity has that of its manifest', async () => {
  const directory = temporaryDirectory();
  makeImage(directory);
  const { stdout } = await runCommand(['manifest', 'image', 'm'], { cwd: directory });
  const server = await HostileServer.start(imageBytes(), (ask) =>
    ask.send({ headers: { etag: undefined, 'last-modified': undefined } }),
  );
  onTestFinished(() => server.stop());
  const result = await runCommand(['copy', server.url, 'disk', '--manifest', 'm', '--json'], { cwd: directory });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(eventsOf(result)[0]).toMatchObject({ event: 'start', identity: `manifest:${stdout.trim()}` });
});

describe('refused before anything is made:', () => {
  test.each([
    { name: 'a manifest that is missing', args: ['--manifest', 'none'], exitCode: 1, code: 'COD_NOT_FOUND' },
    { name: 'a file that is no manifest', args: ['--manifest', 'image'], exitCode: 1, code: 'COD_CORRUPT' },
    { name: 'a manifest of another size', args: ['--manifest', 'small'], exitCode: 1, code: 'COD_SIZE_MISMATCH' },
    {
      name: 'a manifest with another root',
      args: ['--manifest', 'm', '--manifest-root', 'ab'.repeat(32)],
      exitCode: 1,
      code: 'COD_MISMATCH',
    },
    { name: 'a root alone', args: ['--manifest-root', 'ab'.repeat(32)], exitCode: 2, code: 'UsageError' },
  ])('$name', async ({ args, exitCode, code }) => {
    const directory = temporaryDirectory();
    makeImage(directory);
    writeFileSync(join(directory, 'half'), imageBytes().subarray(0, 2 ** 19));
    await runCommand(['manifest', 'image', 'm'], { cwd: directory });
    await runCommand(['manifest', 'half', 'small'], { cwd: directory });
    const before = readdirSync(directory);
    for (const command of [
      ['copy', 'image', 'disk'],
      ['serve', 'image', 'disk', '--socket', 's'],
    ]) {
      const result = await runCommand([...command, ...args, '--json'], { cwd: directory });
      expect(result.exitCode).toBe(exitCode);
      expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
      expect(readdirSync(directory)).toEqual(before);
    }
  });

  test('a manifest without a source', async () => {
    const directory = temporaryDirectory();
    const result = await runCommand(['serve', 'disk', '--manifest', 'm', '--socket', 's'], { cwd: directory });
    expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('needs SOURCE') });
  });
});
