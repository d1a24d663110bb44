/** SOURCE as people have it: `copy` and `serve` of a qcow2 image, and of files that are no disks. */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { type JsonEvent, runCommand, runUntil } from '../cli/command.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { diskBytes, qemu, qemuTools } from '../sources/qcow2/images.ts';
import { expectBytes } from '../support/bytes.ts';
import { mustRun, startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';
import { describeWith } from '../support/tools.ts';

let folder: string;
let target: string;
beforeEach(() => {
  folder = temporaryDirectory();
  target = join(folder, 'target');
});

/** Serves a folder over HTTP. Returns its URL, and the headers of each request. */
async function serveFolder(
  path: string,
): Promise<{ url: string; asked: { url: string; secret: string | undefined }[] }> {
  const asked: { url: string; secret: string | undefined }[] = [];
  const server = createServer((request, response) => {
    const name = join(path, new URL(request.url!, 'http://h').pathname);
    asked.push({ url: request.url!, secret: request.headers.authorization });
    if (!existsSync(name)) {
      response.writeHead(404).end();
      return;
    }
    const bytes = readFileSync(name);
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!.map(Number);
    const part = bytes.subarray(first, last! + 1);
    const range = `bytes ${first}-${first! + part.length - 1}/${bytes.length}`;
    response.writeHead(206, { etag: '"1"', 'content-range': range, 'content-length': part.length }).end(part);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** Makes an overlay in `folder` over a raw file, and returns the bytes of the disk. */
function makeOverlay(name: string, backing: string): Buffer {
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', backing, '-F', 'raw', join(folder, name));
  qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 64k', join(folder, name));
  qemu('qemu-img', 'convert', '-O', 'raw', join(folder, name), join(folder, 'expected'));
  return readFileSync(join(folder, 'expected'));
}

async function expectRefused(code: string, message: RegExp, ...args: string[]): Promise<void> {
  const before = contentsOf(folder);
  const { exitCode, stderr } = await runCommand(args);
  expect(stderr).toMatch(new RegExp(`^copyondemand: ${code}: .+\n$`));
  expect(stderr).toMatch(message);
  expect(exitCode).toBe(1);
  expect(contentsOf(folder)).toEqual(before);
}

describeWith(qemuTools, 'a qcow2 image', () => {
  const disk = diskBytes(1);
  let image: string;
  beforeEach(() => {
    writeFileSync(join(folder, 'raw'), disk);
    image = join(folder, 'disk.img');
    qemu('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', join(folder, 'raw'), image);
  });

  test('is copied as its disk over HTTP, in few requests', async () => {
    const server = await serveFile(image);
    onTestFinished(() => server.close());
    const { exitCode, stderr } = await runCommand(['copy', server.url, target, '--quiet']);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expectBytes(readFileSync(target), disk);
    // Of the length, both ends, the header, the tables, and the data between runs of zeros.
    expect(server.requests).toBeLessThan(25);
    expect(server.sentBytes).toBeLessThan(readFileSync(image).length + 400_000);
  });

  test('resumes after a kill, and is the same image only', async () => {
    const server = await serveFile(image, { bytesPerSecond: 8e5 });
    onTestFinished(() => server.close());
    const args = ['copy', server.url, target, '--quiet'];
    const copied = (event: JsonEvent) => event.event === 'progress' && Number(event['bytes']) > 1e6;
    await runUntil([...args, '--json'], 'SIGKILL', copied);
    const other = await runCommand([...args, '--format', 'raw']);
    expect(other).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/COD_SIZE_MISMATCH/) });
    expect((await runCommand(args)).exitCode).toBe(0);
    expectBytes(readFileSync(target), disk);
  });

  test('is served as its disk', async () => {
    const server = await serveFile(image, { latencyMs: 5 });
    onTestFinished(() => server.close());
    const socket = join(folder, 'socket');
    const { uri, stop } = await startServe(server.url, target, '--socket', socket, '--no-hydrate', '--quiet');
    await mustRun('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri, join(folder, 'raw'));
    await stop();
  });

  test('is copied as a file with --format raw', async () => {
    expect((await runCommand(['copy', image, target, '--format', 'raw', '--quiet'])).exitCode).toBe(0);
    expectBytes(readFileSync(target), readFileSync(image));
  });

  test('is demanded with --format qcow2', async () => {
    await expectRefused('COD_UNSUPPORTED', /not a qcow2/, 'copy', join(folder, 'raw'), target, '--format', 'qcow2');
    expect((await runCommand(['copy', image, target, '--format', 'vmdk'])).exitCode).toBe(2);
  });
});

describeWith(qemuTools, 'a backing file', () => {
  beforeEach(() => writeFileSync(join(folder, 'base.raw'), diskBytes(2)));

  test('is not opened without permission, from a file or from a server', async () => {
    makeOverlay('top', 'base.raw');
    const { url, asked } = await serveFolder(folder);
    for (const source of [join(folder, 'top'), `${url}/top`])
      await expectRefused('COD_UNSUPPORTED', /base\.raw.*--backing/, 'copy', source, target, '--quiet');
    expect(new Set(asked.map(({ url }) => url))).toEqual(new Set(['/top']));
  });

  test('is the one beside the image with --backing allow', async () => {
    const expected = makeOverlay('top', 'base.raw');
    const args = ['copy', join(folder, 'top'), target, '--quiet', '--backing', 'allow'];
    expect(await runCommand(args)).toMatchObject({ exitCode: 0, stderr: '' });
    expectBytes(readFileSync(target), expected);
  });

  test('of an image on a server is on that server, also by an absolute path', async () => {
    mkdirSync(join(folder, 'sub'));
    for (const name of ['base.raw', join(folder, 'base.raw')]) {
      const expected = makeOverlay('top', name);
      // The path of the host leads to the root of the server.
      mkdirSync(join(folder, folder), { recursive: true });
      writeFileSync(join(folder, join(folder, 'base.raw')), diskBytes(3));
      const { url, asked } = await serveFolder(folder);
      const copied = `${target}-${name.length}`;
      const args = ['copy', `${url}/top`, copied, '--quiet', '--backing', 'allow', '--user', 'me:secret'];
      expect(await runCommand(args)).toMatchObject({ exitCode: 0, stderr: '' });
      expect(asked.every(({ secret }) => secret !== undefined)).toBe(true);
      if (name === 'base.raw') expectBytes(readFileSync(copied), expected);
      else expectBytes(readFileSync(copied).subarray(0, 65_536), diskBytes(3).subarray(0, 65_536));
    }
  });

  test('of an image on a server is never on another server', async () => {
    const other = await serveFolder(folder);
    makeOverlay('top', 'base.raw');
    qemu('qemu-img', 'rebase', '-u', '-b', `${other.url}/base.raw`, '-F', 'raw', join(folder, 'top'));
    const { url } = await serveFolder(folder);
    const args = ['copy', `${url}/top`, target, '--quiet', '--backing', 'allow'];
    await expectRefused('COD_UNSUPPORTED', /same server/, ...args);
    expect(other.asked).toEqual([]);
  });

  test('is the one that --backing gives, without the credentials of SOURCE', async () => {
    const expected = makeOverlay('top', 'base.raw');
    qemu('qemu-img', 'rebase', '-u', '-b', '/nowhere', '-F', 'raw', join(folder, 'top'));
    const [top, base] = [await serveFolder(folder), await serveFolder(folder)];
    const args = ['copy', `${top.url}/top`, target, '--quiet', '--user', 'me:secret'];
    expect(await runCommand([...args, '--backing', `${base.url}/base.raw`])).toMatchObject({ exitCode: 0, stderr: '' });
    expectBytes(readFileSync(target), expected);
    expect(base.asked.length).toBeGreaterThan(0);
    expect(base.asked.every(({ secret }) => secret === undefined)).toBe(true);
  });

  test('given by --backing does not open a second one', async () => {
    makeOverlay('middle', 'base.raw');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', join(folder, 'top'));
    const args = ['copy', join(folder, 'top'), target, '--quiet', '--backing'];
    await expectRefused('COD_UNSUPPORTED', /only 1 of the files/, ...args, join(folder, 'middle'));
    expect((await runCommand([...args, 'allow'])).exitCode).toBe(0);
  });

  describe('below a backing file', () => {
    /** Makes three layers that name each other wrongly. Returns the bytes of the disk. */
    function makeChain(): Buffer {
      makeOverlay('middle', 'base.raw');
      qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', join(folder, 'top'));
      qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 9 2M 64k', join(folder, 'top'));
      qemu('qemu-img', 'convert', '-O', 'raw', join(folder, 'top'), join(folder, 'expected'));
      for (const [name, format] of [
        ['top', 'qcow2'],
        ['middle', 'raw'],
      ] as const)
        qemu('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', '/nowhere', '-F', format, join(folder, name));
      return readFileSync(join(folder, 'expected'));
    }

    test('is given by the second --backing, from servers and as a file', async () => {
      const expected = makeChain();
      const [top, middle] = [await serveFolder(folder), await serveFolder(folder)];
      const files = ['--backing', `${middle.url}/middle`, '--backing', join(folder, 'base.raw')];
      const args = ['copy', `${top.url}/top`, target, '--quiet', '--user', 'me:secret', ...files];
      expect(await runCommand(args)).toMatchObject({ exitCode: 0, stderr: '' });
      expectBytes(readFileSync(target), expected);
      expect(middle.asked.every(({ secret }) => secret === undefined)).toBe(true);
    });

    test('is the one that the backing file names after `allow`, and exported by serve', async () => {
      makeChain();
      qemu('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', join(folder, 'middle'));
      const files = ['--backing', join(folder, 'middle'), '--backing', 'allow'];
      const socket = join(folder, 'socket');
      const { uri, stop } = await startServe(join(folder, 'top'), target, '--socket', socket, '--quiet', ...files);
      await mustRun('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri, join(folder, 'expected'));
      await stop();
    });
  });
});

test('an archive is refused before anything is made, and copied with --format raw', async () => {
  const bytes = gzipSync(seededRandom(1).fill(new Uint8Array(100_000)));
  writeFileSync(join(folder, 'disk.img'), bytes);
  for (const command of ['copy', 'serve']) {
    const args = [command, join(folder, 'disk.img'), target, ...(command === 'serve' ? ['--port', '0'] : [])];
    await expectRefused('COD_UNSUPPORTED', /gzip.*gunzip.*raw/, ...args, '--quiet');
  }
  const args = ['copy', join(folder, 'disk.img'), target, '--format', 'raw', '--quiet'];
  expect((await runCommand(args)).exitCode).toBe(0);
  expectBytes(readFileSync(target), bytes);
});
