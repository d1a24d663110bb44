/** `copy --sha512` and `--checksums`: a copy ends as published, or is refused. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { eventsOf, runCommand } from '../cli/command.ts';
import { imageBytes, makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { HostileServer } from '../support/http-server.ts';
import { haveTool, toolPath } from '../support/tools.ts';

const digestOf = (algorithm: 'sha256' | 'sha512'): string => createHash(algorithm).update(imageBytes()).digest('hex');
const WRONG = 'ab'.repeat(32);

/** A directory with an image and files of its digests. */
function arranged(): string {
  const directory = temporaryDirectory();
  makeImage(directory);
  const files = {
    SHA256SUMS: `${WRONG}  other\n${digestOf('sha256')} *image\n`,
    SHA512SUMS: `SHA512 (image) = ${digestOf('sha512')}\n`,
    'SHA256SUMS.asc': [
      '-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n',
      `${digestOf('sha256')}  image\n-----BEGIN PGP SIGNATURE-----\nx\n`,
    ].join('\n'),
    wrong: `${WRONG}  image\n`,
    twice: `${WRONG}  a/image\n${digestOf('sha256')}  b/image\n`,
    other: `${WRONG}  other\n`,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
}

describe('a copy is verified, and confirmed when it is complete already', () => {
  test.each([
    { args: ['--sha512', digestOf('sha512').toUpperCase()], algorithm: 'sha512' as const },
    { args: ['--checksums', 'SHA256SUMS'], algorithm: 'sha256' as const },
    { args: ['--checksums', './SHA512SUMS'], algorithm: 'sha512' as const },
  ])('$args.0 ($algorithm)', async ({ args, algorithm }) => {
    const directory = arranged();
    const command = ['copy', 'image', 'disk', ...args];
    const verified = { event: 'verified', [algorithm]: digestOf(algorithm) };
    const copied = await runCommand([...command, '--json'], { cwd: directory });
    expect(copied).toMatchObject({ exitCode: 0, stderr: '' });
    expect(eventsOf(copied)).toContainEqual(verified);
    const again = await runCommand(command, { cwd: directory });
    const name = algorithm === 'sha256' ? 'SHA-256' : 'SHA-512';
    expect(again).toMatchObject({ exitCode: 0, stderr: `disk: complete already, ${name} verified\n` });
  });

  test.each([
    { args: ['--sha512', 'ab'.repeat(64)], says: 'SHA-512' },
    { args: ['--checksums', 'wrong'], says: 'SHA-256' },
  ])('and refused: $args.0', async ({ args, says }) => {
    const directory = arranged();
    const refused = await runCommand(['copy', 'image', 'disk', ...args, '--json'], { cwd: directory });
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(`the ${says} of disk is`);
    expect(eventsOf(refused).at(-1)).toMatchObject({ event: 'error', code: 'COD_MISMATCH' });
    expect(existsSync(join(directory, 'disk.bak')) || existsSync(join(directory, 'disk.bak.1'))).toBe(true);
    await runCommand(['finish', 'disk'], { cwd: directory });
    const complete = await runCommand(['copy', 'image', 'disk', ...args, '--json'], { cwd: directory });
    expect(eventsOf(complete)).toContainEqual(expect.objectContaining({ event: 'error', code: 'COD_EXISTS' }));
  });
});

test('the file may be on a server without ranges, and the name comes from the path of SOURCE', async () => {
  const directory = arranged();
  const text = `${digestOf('sha256')}  disk image.raw\n`;
  const server = await HostileServer.start(imageBytes(), (ask) => {
    if (!ask.path.startsWith('/SHA256SUMS')) return ask.send();
    const body = new TextEncoder().encode(text);
    return ask.send({ status: 200, headers: { 'content-range': undefined }, body });
  });
  onTestFinished(() => server.stop());
  const url = `${server.origin}/images/disk%20image.raw?x=/y`;
  const args = ['copy', url, 'disk', '--checksums', `${server.origin}/SHA256SUMS`, '--json'];
  const result = await runCommand(args, { cwd: directory });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(eventsOf(result)).toContainEqual({ event: 'verified', sha256: digestOf('sha256') });
});

test('a signature is not verified, and a warning says so', async () => {
  const directory = arranged();
  const args = ['copy', 'image', 'disk', '--checksums', 'SHA256SUMS.asc', '--quiet'];
  const result = await runCommand(args, { cwd: directory });
  expect(result).toMatchObject({
    exitCode: 0,
    stderr: 'copyondemand: warning: the signature in SHA256SUMS.asc is not verified: verify it with gpg\n',
  });
});

test.each([
  { name: 'a file without the image', args: ['--checksums', 'other'], exitCode: 1, code: 'COD_NOT_FOUND' },
  { name: 'a file with two digests', args: ['--checksums', 'twice'], exitCode: 1, code: 'COD_CORRUPT' },
  { name: 'a file that is missing', args: ['--checksums', 'none'], exitCode: 1, code: 'COD_NOT_FOUND' },
  { name: 'two digests', args: ['--sha256', WRONG, '--checksums', 'wrong'], exitCode: 2, code: 'UsageError' },
])('refuses $name, before anything is made', async ({ args, exitCode, code }) => {
  const directory = arranged();
  const before = readdirSync(directory);
  const result = await runCommand(['copy', 'image', 'disk', ...args, '--json'], { cwd: directory });
  expect(result.exitCode).toBe(exitCode);
  expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
  expect(readdirSync(directory)).toEqual(before);
});

test.each([
  { name: 'a digest that is too short', args: ['image', 'disk', '--sha512', WRONG], says: '128 hexadecimal' },
  { name: 'a source without a name', args: ['nbd://127.0.0.1:9/', 'disk', '--checksums', 'a'], says: 'file name' },
])('refuses $name', async ({ args, says }) => {
  const result = await runCommand(['copy', ...args], { cwd: arranged() });
  expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining(says) });
});

test.skipIf(!haveTool('qemu-img'))('the digest of a qcow2 file is not that of its disk', async () => {
  const directory = temporaryDirectory();
  makeImage(directory);
  const file = join(directory, 'image.qcow2');
  execFileSync(toolPath('qemu-img')!, ['convert', '-O', 'qcow2', join(directory, 'image'), file]);
  writeFileSync(join(directory, 'sums'), `${WRONG}  image.qcow2\n`);
  const args = ['copy', 'image.qcow2', 'disk', '--checksums', 'sums'];
  const result = await runCommand(args, { cwd: directory });
  expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('--format raw') });
  expect(existsSync(join(directory, 'disk'))).toBe(false);
  const raw = await runCommand([...args, '--format', 'raw'], { cwd: directory });
  expect(raw.stderr).toContain('the SHA-256 of disk is');
});
