/** `manifest` as a process: what it writes, what it reads for it, and what it refuses. */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { bytesSource, createManifest, readManifest } from '../../src/index.ts';
import { eventsOf, runCommand, runUntil } from '../cli/command.ts';
import { imageBytes, makeImage, makeSparse } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
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
