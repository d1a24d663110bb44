/**
 * Arguments and files that the command must refuse. Each row prints one line on stderr and changes nothing. `npm test`
 * calls every sixth.
 */

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type ListenOptions } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Core } from '../../src/wasm/core.ts';
import { eventsOf, type Result, runCommand } from '../cli/command.ts';
import { beginCopy, crashCopy, IMAGE_BYTES, imageBytes, leaveCopy, makeImage, makeSparse } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { type Behaviour, HostileServer } from '../support/http-server.ts';

/** Returns the arguments. Paths are relative to the directory in which the command runs. */
type Arrange = (directory: string) => Promise<readonly string[]> | readonly string[];

interface Row {
  readonly name: string;
  readonly arrange: Arrange;
  /** What the line on stderr must contain. */
  readonly says: string | RegExp;
  readonly env?: NodeJS.ProcessEnv;
}

interface Refusal extends Row {
  readonly code: string;
  /** The copy may have started before the failure. */
  readonly begins?: true;
  /** The copy has an owner, which renews its record meanwhile. */
  readonly isOwned?: true;
}

const DIGEST = 'ab'.repeat(32);

const usage: readonly Row[] = [
  { name: 'no command', arrange: () => [], says: 'missing command' },
  { name: 'a command that does not exist', arrange: () => ['clone', 'a', 'b'], says: "unknown command 'clone'" },
  { name: 'a misspelt command', arrange: () => ['cop', 'a', 'b'], says: 'Did you mean copy' },
  { name: 'an option that does not exist', arrange: () => ['copy', 'a', 'b', '--fast'], says: '--fast' },
  { name: 'an option of another command', arrange: () => ['inspect', 'a', '--rate', '1M'], says: '--rate' },
  { name: 'no target', arrange: () => ['copy', 'a'], says: "'target'" },
  { name: 'changes saved without a snapshot', arrange: () => ['changes', 'a', '--output', 'b'], says: 'needs --since' },
  {
    name: 'the backing file of nothing',
    arrange: () => ['changes', 'a', '--since', 'b', '--backing-file', 'c'],
    says: '--backing-file needs --output',
  },
  { name: 'no source', arrange: () => ['copy'], says: "'source'" },
  { name: 'one argument too many', arrange: () => ['copy', 'a', 'b', 'c'], says: 'too many arguments' },
  { name: 'serve without a target', arrange: () => ['serve'], says: "'source'" },
  { name: 'serve with an empty target', arrange: () => ['serve', 'a', ''], says: 'TARGET is empty' },
  {
    name: 'serve on a socket and a port',
    arrange: () => ['serve', 'a', 'b', '--socket', 's', '--port', '1'],
    says: 'either --socket',
  },
  {
    name: 'serve on a socket and a host',
    arrange: () => ['serve', 'a', 'b', '--socket', 's', '--host', '::1'],
    says: 'either --socket',
  },
  {
    name: 'verbose and quiet',
    arrange: () => ['serve', 'a', 'b', '-v', '--quiet'],
    says: 'use either --verbose or --quiet',
  },
  {
    name: 'metrics at no address',
    arrange: () => ['serve', 'a', 'b', '--metrics', 'http://localhost:9464'],
    says: 'Use HOST:PORT or PORT',
  },
  {
    name: 'metrics of a copy',
    arrange: () => ['copy', 'a', 'b', '--metrics', '9464'],
    says: '--metrics',
  },
  {
    name: 'serve on a port above 65535',
    arrange: () => ['serve', 'a', 'b', '--port', '65536'],
    says: 'from 0 to 65535',
  },
  {
    name: 'serve on a port that is not a number',
    arrange: () => ['serve', 'a', 'b', '--port', 'nbd'],
    says: 'from 0 to 65535',
  },
  {
    name: 'serve on a socket without a path',
    arrange: () => ['serve', 'a', 'b', '--socket', ''],
    says: '1 to 107 bytes',
  },
  {
    name: 'serve on a socket whose path is too long',
    arrange: () => ['serve', 'a', 'b', '--socket', 'x'.repeat(108)],
    says: '1 to 107 bytes',
  },
  {
    name: 'serve with an export name that is too long',
    arrange: () => ['serve', 'a', 'b', '--export', 'x'.repeat(4097)],
    says: '4096',
  },
  {
    name: 'serve with a certificate and no key',
    arrange: () => ['serve', 'a', 'b', '--tls-cert', 'c'],
    says: 'used together',
  },
  {
    name: 'serve with a key and no certificate',
    arrange: () => ['serve', 'a', 'b', '--tls-key', 'k'],
    says: 'used together',
  },
  { name: 'serve with --tls-ca only', arrange: () => ['serve', 'a', 'b', '--tls-ca', 'a'], says: '--tls-ca' },
  {
    name: 'serve with a rate and --no-hydrate',
    arrange: () => ['serve', 'a', 'b', '--no-hydrate', '--rate', '1M'],
    says: '--no-hydrate',
  },
  {
    name: 'serve with a rate that is not a number',
    arrange: () => ['serve', 'a', 'b', '--rate', 'fast'],
    says: '250mbit',
  },
  { name: 'serve with an option of copy', arrange: () => ['serve', 'a', 'b', '--sha256', DIGEST], says: '--sha256' },
  { name: 'serve from an unknown URL scheme', arrange: () => ['serve', 'ftp://a/b', 'c'], says: 'ftp://' },
  { name: 'inspect without a target', arrange: () => ['inspect'], says: "'target'" },
  { name: 'a rate without a value', arrange: () => ['copy', 'a', 'b', '--rate'], says: '--rate' },
  { name: 'a rate that is not a number', arrange: () => ['copy', 'a', 'b', '--rate', 'fast'], says: '250mbit' },
  { name: 'a rate of zero', arrange: () => ['copy', 'a', 'b', '--rate', '0'], says: 'at least 1 byte' },
  { name: 'a negative rate', arrange: () => ['copy', 'a', 'b', '--rate=-1M'], says: '--rate' },
  { name: 'a rate in megabytes of 1000', arrange: () => ['copy', 'a', 'b', '--rate', '10MB'], says: '--rate' },
  {
    name: 'a group without a rate',
    arrange: (dir) => ['copy', makeImage(dir), 'b', '--rate-group', 'g'],
    says: '--rate-file',
  },
  {
    name: 'an order for serve with --no-hydrate',
    arrange: (dir) => ['serve', makeImage(dir), 'b', '--socket', 's', '--no-hydrate', '--order', 'o'],
    says: '--no-hydrate',
  },
  {
    name: 'a group with an invalid name',
    arrange: () => ['copy', 'a', 'b', '--rate', '1M', '--rate-group', '../g'],
    says: '--rate-group',
  },
  {
    name: 'a rate file without a rate',
    arrange: (dir) => {
      writeFileSync(join(dir, 'rate'), 'fast');
      return ['copy', makeImage(dir), 'b', '--rate-file', 'rate'];
    },
    says: 'unlimited',
  },
  { name: 'a digest that is too short', arrange: () => ['copy', 'a', 'b', '--sha256', 'abc'], says: '64 hexadecimal' },
  {
    name: 'a digest with characters that are not hexadecimal',
    arrange: () => ['copy', 'a', 'b', '--sha256', 'xy'.repeat(32)],
    says: '64 hexadecimal',
  },
  { name: 'a concurrency of 0', arrange: () => ['copy', 'a', 'b', '--concurrency', '0'], says: 'from 1 to 64' },
  { name: 'a concurrency of 1.5', arrange: () => ['copy', 'a', 'b', '--concurrency', '1.5'], says: 'from 1 to 64' },
  { name: 'a size that is not a number', arrange: () => ['inspect', 'a', '--size', 'big'], says: '--size' },
  { name: 'a timeout of zero', arrange: () => ['copy', 'a', 'b', '--timeout', '0'], says: '--timeout' },
  { name: 'an NBD source without a host', arrange: () => ['copy', 'nbd:///x', 'b'], says: 'host' },
  { name: 'an NBD source without its socket', arrange: () => ['copy', 'nbd+unix:///x', 'b'], says: '?socket=PATH' },
  {
    name: 'an NBD source with an unknown parameter',
    arrange: () => ['copy', 'nbds://h/x?tls-psk-file=f', 'b'],
    says: 'tls-psk-file',
  },
  {
    name: 'HTTP options with an NBD source',
    arrange: () => ['copy', 'nbd://127.0.0.1:9/x', 'b', '--user', 'a:b'],
    says: 'needs an HTTP source',
  },
  { name: 'an S3 source without a key', arrange: () => ['copy', 's3://bucket', 'b'], says: 's3://BUCKET/KEY' },
  {
    name: 'an S3 source whose key a URL cannot have',
    arrange: () => ['copy', 's3://bucket/a/../b', 'b', '--no-sign-request'],
    says: '..',
  },
  {
    name: 'an endpoint of S3 that is no URL',
    arrange: () => ['copy', 's3://bucket/key', 'b', '--endpoint-url', 'localhost:9000'],
    says: 'endpoint',
  },
  {
    name: 'an endpoint of S3 with an HTTP source',
    arrange: () => ['copy', 'http://127.0.0.1:9/', 'b', '--endpoint-url', 'http://127.0.0.1:9/'],
    says: 'needs an S3 source',
  },
  { name: 'an invalid URL', arrange: () => ['copy', 'http://h:99999/', 'b'], says: 'not a valid URL' },
  { name: 'an empty source', arrange: () => ['copy', '', 'b'], says: 'SOURCE is empty' },
  { name: 'an empty target', arrange: (dir) => ['copy', makeImage(dir), ''], says: 'TARGET' },
  { name: 'inspect with an empty target', arrange: () => ['inspect', ''], says: 'TARGET' },
  {
    name: 'a header without a colon',
    arrange: () => ['copy', 'http://127.0.0.1:9/', 'b', '--header', 'nonsense'],
    says: 'Name: value',
  },
  {
    name: 'a header that httpSource sets itself',
    arrange: () => ['copy', 'http://127.0.0.1:9/', 'b', '--header', 'Range: x'],
    says: 'Range',
  },
  {
    name: 'a user without a password',
    arrange: () => ['copy', 'http://127.0.0.1:9/', 'b', '--user', 'me'],
    says: 'name:password',
  },
  {
    name: 'a timeout with a path',
    arrange: (dir) => ['copy', makeImage(dir), 'b', '--timeout', '1'],
    says: 'needs a network source',
  },
  ...[
    ['--user-file', 'f'],
    ['--netrc'],
    ['--header', '@f'],
    ['--cacert', 'f'],
    ['--cert', 'f'],
    ['--key', 'f'],
    ['--insecure'],
  ].flatMap((option) =>
    (['s3://b/k', 'nbd://127.0.0.1:9/', 'image'] as const)
      // S3 has no users, and all the rest.
      .filter((source) => source !== 's3://b/k' || /user|netrc/.test(option[0]!))
      .map((source) => ({
        name: `${option[0]} with ${source}`,
        arrange: () => ['copy', source, 'b', ...option],
        says: `${option[0]} needs an HTTP source`,
      })),
  ),
  {
    name: 'a user and a file with a user',
    arrange: () => ['copy', 'http://127.0.0.1:9/', 'b', '--user', 'a:b', '--user-file', 'f'],
    says: 'either --user or --user-file',
  },
  {
    name: 'a public object with an HTTP source',
    arrange: () => ['serve', 'http://127.0.0.1:9/', 'b', '--no-sign-request'],
    says: 'needs an S3 source',
  },
  {
    name: 'a client certificate without its key',
    arrange: () => ['serve', 'https://127.0.0.1:9/', 'b', '--cert', 'f'],
    says: '--cert and --key',
  },
  {
    name: 'HTTP options with a path',
    arrange: (dir) => ['copy', makeImage(dir), 'b', '--user', 'a:b'],
    says: 'needs an HTTP source',
  },
  { name: 'a misspelt option', arrange: () => ['copy', 'a', 'b', '--quite'], says: 'Did you mean --quiet' },
  { name: 'completion without a shell', arrange: () => ['completion'], says: "'shell'" },
  { name: 'completion for an unknown shell', arrange: () => ['completion', 'tcsh'], says: 'bash, zsh, fish' },
  { name: 'export without its format', arrange: () => ['export', 'a'], says: '--format 1' },
  {
    name: 'a rate in the environment that is not a number',
    arrange: () => ['copy', 'a', 'b'],
    env: { COPYONDEMAND_RATE: 'fast' },
    says: 'copyondemand: COPYONDEMAND_RATE is invalid. Use for example',
  },
  {
    name: 'a boolean in the environment that is no word for it',
    arrange: () => ['serve', 'a', 'b'],
    env: { COPYONDEMAND_NO_HYDRATE: 'on' },
    says: 'copyondemand: COPYONDEMAND_NO_HYDRATE is invalid. Use 1, true or yes',
  },
  {
    name: 'a user in the environment without a password',
    arrange: () => ['copy', 'http://127.0.0.1:9/', 'b'],
    env: { COPYONDEMAND_USER: 'hunter2' },
    says: /^copyondemand: COPYONDEMAND_USER needs the form name:password\n$/,
  },
];

/** Wrong usage that `--json` reports on stdout as well. */
const usageInJson: readonly Row[] = [
  { name: 'no command', arrange: () => ['--json'], says: /^missing command/ },
  { name: 'a misspelt command', arrange: () => ['cop', 'a', 'b', '--json'], says: "unknown command 'cop'" },
  { name: 'an option that does not exist', arrange: () => ['copy', 'a', 'b', '--json', '--fast'], says: "'--fast'" },
  { name: 'a rate that is not a number', arrange: () => ['copy', 'a', 'b', '--json', '--rate', 'x'], says: '--rate' },
  { name: 'no target', arrange: () => ['status', '--json'], says: "'target'" },
  { name: 'an empty source', arrange: () => ['copy', '', 'b', '--json'], says: 'SOURCE is empty' },
  { name: 'status of an empty target', arrange: () => ['status', '', '--json'], says: 'TARGET is empty' },
  {
    name: 'two addresses',
    arrange: () => ['serve', 'a', 'b', '--socket', 's', '--port', '1', '--json'],
    says: 'either',
  },
  {
    name: 'a variable for JSON',
    arrange: () => ['copy', 'a'],
    env: { COPYONDEMAND_JSON: '1' },
    says: "missing required argument 'target'",
  },
  {
    name: 'a wrong variable beside one for JSON',
    arrange: () => ['copy', 'a', 'b'],
    env: { COPYONDEMAND_JSON: 'yes', COPYONDEMAND_TIMEOUT: '0' },
    says: /^COPYONDEMAND_TIMEOUT is invalid/,
  },
];

const files: readonly Refusal[] = [
  {
    name: 'a source that is missing',
    arrange: () => ['copy', 'nothing', 'disk'],
    code: 'COD_NOT_FOUND',
    says: 'nothing',
  },
  {
    name: 'a source below a file',
    arrange: (dir) => ['copy', `${makeImage(dir)}/below`, 'disk'],
    code: 'COD_NOT_FOUND',
    says: 'below',
  },
  {
    name: 'an NBD server that does not exist',
    arrange: () => ['copy', 'nbd+unix:///?socket=nothing', 'disk', '--retries', '0'],
    code: 'COD_SOURCE_IO',
    says: 'ENOENT',
  },
  {
    name: 'missing certificates',
    arrange: () => ['copy', 'nbds://127.0.0.1:9/?tls-certificates=.', 'disk'],
    code: 'COD_NOT_FOUND',
    says: 'ca-cert.pem',
  },
  {
    name: 'a source that is a directory',
    arrange: () => ['copy', '.', 'disk'],
    code: 'COD_SOURCE_IO',
    says: 'directory',
  },
  {
    name: 'a source that is a device without a size',
    arrange: () => ['copy', '/dev/null', 'disk'],
    code: 'COD_SOURCE_IO',
    says: '/dev/null is a character device: name',
  },
  {
    name: 'a source that is a pipe',
    arrange: (dir) => {
      execFileSync('mkfifo', [join(dir, 'pipe')]);
      return ['copy', 'pipe', 'disk'];
    },
    code: 'COD_SOURCE_IO',
    says: 'pipe is a pipe: name',
  },
  {
    name: 'an empty source file',
    arrange: (dir) => ['copy', makeSparse(join(dir, 'image'), 0), 'disk'],
    code: 'COD_SIZE_MISMATCH',
    says: 'empty',
  },
  {
    name: 'a target without metadata',
    arrange: (dir) => {
      writeFileSync(join(dir, 'disk'), 'precious');
      return ['copy', makeImage(dir), 'disk'];
    },
    code: 'COD_EXISTS',
    says: 'disk',
  },
  {
    name: 'an empty target without metadata',
    arrange: (dir) => ['copy', makeImage(dir), makeSparse(join(dir, 'disk'), 0)],
    code: 'COD_EXISTS',
    says: 'disk',
  },
  {
    name: 'a source that is the target',
    arrange: (dir) => ['copy', makeImage(dir), 'image'],
    code: 'COD_EXISTS',
    says: 'same file',
  },
  {
    name: 'a source that is the target through a symbolic link',
    arrange: (dir) => {
      symlinkSync(makeImage(dir), join(dir, 'link'));
      return ['copy', 'image', 'link'];
    },
    code: 'COD_EXISTS',
    says: 'same file',
  },
  {
    name: 'a source that is the target through a hard link',
    arrange: (dir) => {
      linkSync(makeImage(dir), join(dir, 'link'));
      return ['copy', 'link', 'image'];
    },
    code: 'COD_EXISTS',
    says: 'same file',
  },
  {
    name: 'a source whose path is a metadata file of the target',
    arrange: (dir) => ['copy', makeSparse(join(dir, 'disk.bak'), IMAGE_BYTES), 'disk'],
    code: 'COD_EXISTS',
    says: 'metadata',
  },
  {
    name: 'an image that begins with zeros, at the name of a metadata file',
    arrange: (dir) => {
      writeFileSync(join(dir, 'disk.bak'), Buffer.concat([Buffer.alloc(1024), Buffer.from('image')]));
      return ['copy', makeImage(dir), 'disk'];
    },
    code: 'COD_EXISTS',
    says: 'disk.bak',
  },
  ...(['serve', 'copy', 'inspect'] as const).map((command) => ({
    name: `${command} beside a link at the name of a metadata file`,
    arrange: (dir: string) => {
      makeSparse(join(dir, 'victim'), 0);
      symlinkSync('victim', join(dir, 'disk.wil'));
      const source = makeImage(dir);
      if (command === 'inspect') return ['inspect', 'disk'];
      return [command, source, 'disk', ...(command === 'serve' ? ['--socket', 's'] : [])];
    },
    code: 'COD_EXISTS' as const,
    says: 'disk.wil',
  })),
  {
    name: 'a lock that is a link',
    arrange: (dir) => {
      symlinkSync('victim', join(dir, 'disk.lock'));
      return ['copy', makeImage(dir), 'disk'];
    },
    code: 'COD_EXISTS',
    says: 'disk.lock',
  },
  {
    name: 'a target that is a link to nowhere',
    arrange: (dir) => {
      symlinkSync('nowhere', join(dir, 'disk'));
      return ['copy', makeImage(dir), 'disk'];
    },
    code: 'COD_EXISTS',
    says: 'link',
  },
  {
    name: 'a target that is a directory',
    arrange: (dir) => {
      mkdirSync(join(dir, 'disk'));
      return ['copy', makeImage(dir), 'disk'];
    },
    code: 'COD_TARGET_IO',
    says: 'disk',
  },
  {
    name: 'a target in a missing directory',
    arrange: (dir) => ['copy', makeImage(dir), 'no/disk'],
    code: 'COD_NOT_FOUND',
    says: 'no',
  },
  {
    name: 'a target below a file',
    arrange: (dir) => ['copy', makeImage(dir), 'image/disk'],
    code: 'COD_TARGET_IO',
    says: 'image',
  },
  {
    name: 'inspect of a missing target',
    arrange: () => ['inspect', 'disk'],
    code: 'COD_NOT_FOUND',
    says: 'no metadata and does not exist',
  },
  {
    name: 'inspect of a finished copy',
    arrange: (dir) => ['inspect', makeImage(dir)],
    code: 'COD_NOT_FOUND',
    says: /no metadata and is a file of .+: a finished copy/,
  },
  {
    name: 'inspect in a missing directory',
    arrange: () => ['inspect', 'no/disk'],
    code: 'COD_NOT_FOUND',
    says: 'no metadata',
  },
  {
    name: 'an order file that is missing',
    arrange: (dir) => ['copy', makeImage(dir), 'disk', '--order', 'order'],
    code: 'COD_NOT_FOUND',
    says: 'order',
  },
  {
    name: 'an order file of another format',
    arrange: (dir) => ['copy', makeImage(dir), 'disk', '--order', 'image'],
    code: 'COD_CORRUPT',
    says: 'not an order file',
  },
  {
    name: '--record-order to a file of another format',
    arrange: (dir) => ['serve', makeImage(dir), 'disk', '--socket', 's', '--record-order', 'image'],
    code: 'COD_EXISTS',
    says: 'not an order file',
  },
  {
    name: 'an order file for another image',
    arrange: (dir) => {
      writeFileSync(join(dir, 'order'), 'copyondemand order 1\nsize 512\n');
      return ['copy', makeImage(dir), 'disk', '--order', 'order'];
    },
    code: 'COD_SIZE_MISMATCH',
    says: '512',
  },
  {
    name: 'inspect with another size',
    arrange: async (dir) => ['inspect', await leaveCopy(makeImage(dir), dir), '--size', '8M'],
    code: 'COD_SIZE_MISMATCH',
    says: '--size',
  },
];

const GOLDEN = new URL('../fixtures/golden/', import.meta.url);

/** Changes bytes of a file. */
function change(path: string, edit: (bytes: Uint8Array) => void): void {
  const bytes = readFileSync(path);
  edit(bytes);
  writeFileSync(path, bytes);
}

function flip(path: string, offset: number): void {
  change(path, (bytes) => {
    bytes[offset]! ^= 0x10;
  });
}

/** The path of the newest slot of a kind of metadata file. */
function newest(target: string, kind: 'bak' | 'wil'): string {
  const slots = [`${target}.${kind}`, `${target}.${kind}.1`].filter(existsSync);
  const epoch = (path: string) => readFileSync(path).readBigUInt64LE(32);
  return slots.reduce((best, path) => (epoch(path) > epoch(best) ? path : best));
}

const copyAgain = ['copy', 'image', 'disk'];

/** A row whose copy has crashed and was then tampered with. */
function tampered(
  name: string,
  code: string,
  says: string | RegExp,
  tamper: (target: string, directory: string) => Promise<void> | void,
): Refusal {
  return {
    name,
    code,
    says,
    arrange: async (dir) => {
      await tamper(await crashCopy(makeImage(dir), dir), dir);
      return copyAgain;
    },
  };
}

const metadata: readonly Refusal[] = [
  tampered('a bit flipped in the header of the checkpoint', 'COD_CORRUPT', 'disk.bak', (target) =>
    flip(newest(target, 'bak'), 42),
  ),
  tampered('a bit flipped in the body of the checkpoint', 'COD_CORRUPT', 'disk.bak', (target) =>
    flip(newest(target, 'bak'), 512),
  ),
  tampered('a bit flipped in the header of the log', 'COD_CORRUPT', 'disk.wil', (target) =>
    flip(newest(target, 'wil'), 20),
  ),
  tampered('a bit flipped in the log', 'COD_CORRUPT', 'disk.wil', (target) => flip(newest(target, 'wil'), 512 + 20)),
  tampered('the log is missing', 'COD_CORRUPT', 'missing', (target) => unlinkSync(newest(target, 'wil'))),
  tampered('the log was cut', 'COD_CORRUPT', 'disk.wil', (target) => truncateSync(newest(target, 'wil'), 8192)),
  tampered('metadata of a newer version', 'COD_VERSION', '3', (target) =>
    change(newest(target, 'bak'), (bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      view.setBigUint64(8, 3n, true);
      view.setUint32(500, Core.create().crc32c(bytes.subarray(0, 500)), true);
    }),
  ),
  tampered('a log of another copy', 'COD_CORRUPT', 'different copies', async (target, dir) => {
    mkdirSync(join(dir, 'other'));
    const other = await crashCopy(join(dir, 'image'), join(dir, 'other'));
    copyFileSync(newest(other, 'wil'), newest(target, 'wil'));
  }),
  tampered('the target is missing', 'COD_CORRUPT', 'missing', (target) => unlinkSync(target)),
  tampered('the target shrank', 'COD_CORRUPT', String(IMAGE_BYTES), (target) => truncateSync(target, IMAGE_BYTES / 2)),
  tampered('the target grew', 'COD_SIZE_MISMATCH', String(IMAGE_BYTES), (target) =>
    truncateSync(target, IMAGE_BYTES * 2),
  ),
  tampered('the source has another size', 'COD_SIZE_MISMATCH', String(IMAGE_BYTES), (_target, dir) =>
    truncateSync(join(dir, 'image'), IMAGE_BYTES * 2),
  ),
  tampered('the source was written to', 'COD_SOURCE_CHANGED', 'made from', (_target, dir) =>
    writeFileSync(join(dir, 'image'), imageBytes(2)),
  ),
  {
    name: 'metadata of another target',
    arrange: async (dir) => {
      const target = await leaveCopy(makeImage(dir), dir);
      copyFileSync(newest(target, 'bak'), newest(target, 'bak').replace('disk', 'other'));
      copyFileSync(newest(target, 'wil'), newest(target, 'wil').replace('disk', 'other'));
      return ['copy', 'image', 'other'];
    },
    code: 'COD_CORRUPT',
    says: 'missing',
  },
  {
    name: 'a checkpoint of format 1 cut short',
    arrange: (dir) => {
      writeFileSync(join(dir, 'disk.bak'), readFileSync(new URL('map-only/disk.raw.bak', GOLDEN)).subarray(0, 5000));
      makeSparse(join(dir, 'disk'), 64 * 2 ** 20);
      return ['copy', makeSparse(join(dir, 'image'), 64 * 2 ** 20), 'disk'];
    },
    code: 'COD_CORRUPT',
    says: 'cut short',
  },
  {
    name: 'inspect of a checkpoint of format 1 whose target is missing',
    arrange: (dir) => {
      copyFileSync(new URL('map-only/disk.raw.bak', GOLDEN), join(dir, 'disk.bak'));
      return ['inspect', 'disk'];
    },
    code: 'COD_NOT_FOUND',
    says: '--size',
  },
  {
    name: 'inspect of a damaged checkpoint',
    arrange: async (dir) => {
      const target = await leaveCopy(makeImage(dir), dir);
      flip(newest(target, 'bak'), 42);
      return ['inspect', target, '--json'];
    },
    code: 'COD_CORRUPT',
    says: 'checksum',
  },
  {
    name: 'a copy that another process has open',
    arrange: async (dir) => {
      const device = await beginCopy(makeImage(dir), join(dir, 'disk'));
      onTestFinished(() => device.close());
      return copyAgain;
    },
    isOwned: true,
    code: 'COD_LOCKED',
    says: String(process.pid),
  },
];

/** A row whose server shows this behaviour from its request number `from` on. */
function served(
  name: string,
  code: string,
  says: string | RegExp,
  behaviour: Behaviour,
  options: { flags?: readonly string[]; from?: number } = {},
): Refusal {
  const { flags = ['--retries', '0'], from = 0 } = options;
  return {
    name,
    code,
    says,
    ...(from > 0 ? { begins: true } : {}),
    arrange: async () => {
      const server = await HostileServer.start(imageBytes(), (ask) => (ask.index < from ? ask.send() : behaviour(ask)));
      onTestFinished(() => server.stop());
      return ['copy', server.url, 'disk', ...flags];
    },
  };
}

const servers: readonly Refusal[] = [
  {
    name: 'a server that refuses connections',
    arrange: async () => {
      const server = await HostileServer.start(new Uint8Array(1));
      const { url } = server;
      await server.stop();
      return ['copy', url, 'disk', '--retries', '1'];
    },
    code: 'COD_SOURCE_IO',
    says: 'after 2 attempts',
  },
  served('404', 'COD_NOT_FOUND', '404', (ask) => ask.send({ status: 404 })),
  served('401', 'COD_SOURCE_IO', /401.*--user/, (ask) => ask.send({ status: 401 })),
  served('403', 'COD_SOURCE_IO', '403', (ask) => ask.send({ status: 403 })),
  served('500 on every attempt', 'COD_SOURCE_IO', '500', (ask) => ask.send({ status: 500 }), {
    flags: ['--retries', '2'],
  }),
  served('a server that ignores ranges', 'COD_SOURCE_IO', '--stream-whole', (ask) =>
    ask.send({ status: 200, headers: { 'content-range': undefined }, body: imageBytes() }),
  ),
  served('an empty image', 'COD_SIZE_MISMATCH', 'empty', (ask) =>
    ask.send({ status: 416, headers: { 'content-range': 'bytes */0' }, body: '' }),
  ),
  served('no response at all', 'COD_SOURCE_IO', '1000 ms', () => {}, { flags: ['--retries', '0', '--timeout', '1'] }),
  served('no response after the first', 'COD_SOURCE_IO', '1000 ms', () => {}, {
    flags: ['--retries', '0', '--timeout', '1'],
    from: 1,
  }),
  served(
    'a body that is too short',
    'COD_SOURCE_IO',
    'bytes',
    (ask) => {
      ask.send({
        headers: { 'content-length': String(ask.end - ask.start) },
        body: imageBytes().subarray(ask.start, ask.end - 1),
      });
      ask.socket.end();
    },
    { from: 1 },
  ),
  served(
    'a response with another range',
    'COD_SOURCE_IO',
    'sent the wrong range',
    (ask) => ask.send({ headers: { 'content-range': `bytes ${ask.start + 1}-${ask.end - 1}/${IMAGE_BYTES}` } }),
    { from: 1 },
  ),
  served(
    'another size in the middle of the copy',
    'COD_SOURCE_CHANGED',
    '',
    (ask) => ask.send({ headers: { 'content-range': `bytes ${ask.start}-${ask.end - 1}/${IMAGE_BYTES * 2}` } }),
    {
      from: 1,
    },
  ),
  served(
    'another ETag in the middle of the copy',
    'COD_SOURCE_CHANGED',
    '"v2"',
    (ask) => ask.send({ headers: { etag: '"v2"' } }),
    {
      from: 1,
    },
  ),
  {
    name: 'another ETag at the second run',
    arrange: async (dir) => {
      const server = await HostileServer.start(imageBytes());
      onTestFinished(() => server.stop());
      const target = await leaveCopy(server.url, dir);
      server.behaviour = (ask) => ask.send({ headers: { etag: '"v2"' } });
      return ['copy', server.url, target];
    },
    code: 'COD_SOURCE_CHANGED',
    says: /"v1".*"v2"/,
  },
  {
    name: 'a URL with credentials, which are not printed',
    arrange: async () => {
      const server = await HostileServer.start(imageBytes(), (ask) => ask.send({ status: 403 }));
      onTestFinished(() => server.stop());
      return ['copy', server.url.replace('//', '//me:secret@'), 'disk'];
    },
    code: 'COD_SOURCE_IO',
    says: /^(?!.*secret)/,
  },
];

/** Listens until the end of the test. */
async function listenAt(where: ListenOptions): Promise<number> {
  const server = createServer().listen(where);
  onTestFinished(() => {
    server.close();
  });
  await once(server, 'listening');
  const address = server.address();
  return address === null || typeof address === 'string' ? 0 : address.port;
}

const serving: readonly Refusal[] = [
  {
    name: 'a Unix socket on which another process listens',
    arrange: async (dir) => {
      await listenAt({ path: join(dir, 's') });
      return ['serve', makeImage(dir), 'disk', '--socket', 's'];
    },
    code: 'COD_LOCKED',
    says: 'another process listens at s',
  },
  {
    name: 'a Unix socket whose path is a file',
    arrange: (dir) => {
      writeFileSync(join(dir, 's'), 'precious');
      return ['serve', makeImage(dir), 'disk', '--socket', 's'];
    },
    code: 'COD_EXISTS',
    says: 'not a socket',
  },
  {
    name: 'a Unix socket in a missing folder',
    arrange: (dir) => ['serve', makeImage(dir), 'disk', '--socket', 'none/s'],
    code: 'COD_NOT_FOUND',
    says: 'the directory none does not exist',
  },
  {
    name: 'a port on which another process listens',
    arrange: async (dir) => [
      'serve',
      makeImage(dir),
      'disk',
      '--port',
      String(await listenAt({ port: 0, host: '127.0.0.1' })),
    ],
    code: 'COD_LOCKED',
    says: 'another process listens at 127.0.0.1',
  },
  {
    name: 'metrics on a port on which another process listens',
    arrange: async (dir) => [
      'serve',
      makeImage(dir),
      'disk',
      '--metrics',
      String(await listenAt({ port: 0, host: '127.0.0.1' })),
    ],
    code: 'COD_LOCKED',
    says: 'another process listens at 127.0.0.1',
  },
  {
    name: 'metrics at an address of another machine',
    arrange: (dir) => ['serve', makeImage(dir), 'disk', '--metrics', '192.0.2.1:0'],
    code: 'COD_NOT_FOUND',
    says: '192.0.2.1',
  },
  {
    name: 'an address of another machine',
    arrange: (dir) => ['serve', makeImage(dir), 'disk', '--host', '192.0.2.1', '--port', '0'],
    code: 'COD_NOT_FOUND',
    says: '192.0.2.1',
  },
  {
    name: 'a certificate that is missing',
    arrange: (dir) => ['serve', makeImage(dir), 'disk', '--socket', 's', '--tls-cert', 'c.pem', '--tls-key', 'k.pem'],
    code: 'COD_NOT_FOUND',
    says: '.pem',
  },
  {
    name: 'a source to serve that is missing',
    arrange: () => ['serve', 'nothing', 'disk', '--socket', 's'],
    code: 'COD_NOT_FOUND',
    says: 'nothing',
  },
  {
    name: 'a target to serve without metadata',
    arrange: (dir) => {
      writeFileSync(join(dir, 'disk'), 'precious');
      return ['serve', makeImage(dir), 'disk', '--socket', 's'];
    },
    code: 'COD_EXISTS',
    says: 'disk',
  },
  {
    name: 'a target to serve in a missing folder',
    arrange: (dir) => ['serve', makeImage(dir), 'none/disk', '--socket', 's'],
    code: 'COD_NOT_FOUND',
    says: 'none',
  },
  {
    name: 'a source to serve that is the target',
    arrange: (dir) => ['serve', makeImage(dir), 'image', '--socket', 's'],
    code: 'COD_EXISTS',
    says: 'same file',
  },
];

function expectOneLine({ stderr }: Result, says: string | RegExp): void {
  const [line, ...rest] = stderr.trimEnd().split('\n');
  expect(rest).toEqual([]);
  if (typeof says === 'string') expect(line).toContain(says);
  else expect(line).toMatch(says);
}

describe.for(usage)('wrong usage: $name', (row) => {
  test('exits with 2 and at most two lines on stderr, and changes nothing', async () => {
    const directory = temporaryDirectory();
    const args = await row.arrange(directory);
    const before = contentsOf(directory);
    const result = await runCommand(args, { cwd: directory, ...(row.env && { env: row.env }) });
    expect(result.stderr).toMatch(/^copyondemand: .+\n(.+\n)?$/);
    if (typeof row.says === 'string') expect(result.stderr).toContain(row.says);
    else expect(result.stderr).toMatch(row.says);
    expect(result.stdout).toBe('');
    expect(result.exitCode).toBe(2);
    expect(contentsOf(directory)).toEqual(before);
  });
});

test.for(usageInJson)('wrong usage in JSON: $name', async ({ arrange, says, env }) => {
  const directory = temporaryDirectory();
  const result = await runCommand(await arrange(directory), { cwd: directory, ...(env && { env }) });
  const message = typeof says === 'string' ? expect.stringContaining(says) : expect.stringMatching(says);
  expect(eventsOf(result)).toEqual([{ event: 'error', code: 'UsageError', message, details: {} }]);
  expect(result.exitCode).toBe(2);
});

const refusals = [...files, ...metadata, ...servers, ...serving];

describe.for(refusals)('refused: $name', ({ arrange, code, says, begins, isOwned }) => {
  test(`fails with ${code} in one line, and changes nothing`, async () => {
    const directory = temporaryDirectory();
    const args = await arrange(directory);
    const contents = (): Record<string, string> => {
      const found = contentsOf(directory);
      if (isOwned) delete found['disk.lock'];
      return found;
    };
    const before = contents();
    const result = await runCommand(args, { cwd: directory });
    expect(result.stderr).toMatch(new RegExp(`^copyondemand: ${code}: .+\n$`));
    expectOneLine(result, says);
    if (args.includes('--json')) expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
    else expect(result.stdout).toBe('');
    expect(result.exitCode).toBe(1);
    if (!begins) expect(contents()).toEqual(before);

    if ((args[0] !== 'copy' && args[0] !== 'serve') || begins) return;
    const again = await runCommand([...args, '--json'], { cwd: directory });
    expect(again.exitCode).toBe(1);
    expect(eventsOf(again).at(-1)).toMatchObject({ event: 'error', code });
    expectOneLine(again, says);
    expect(contents()).toEqual(before);
  });
});

test('a wrong digest is COD_MISMATCH and keeps the copy; the right digest then finishes it', async () => {
  const directory = temporaryDirectory();
  const image = makeImage(directory);
  const result = await runCommand(['copy', image, 'disk', '--sha256', DIGEST, '--quiet'], { cwd: directory });
  expect(result.exitCode).toBe(1);
  expectOneLine(result, DIGEST);
  expect(result.stderr).toContain('COD_MISMATCH');
  expect(Object.keys(contentsOf(directory))).toContain('disk.bak');
  const found = contentsOf(directory)['image']!.split(' ')[1]!;
  const again = await runCommand(['copy', image, 'disk', '--sha256', found, '--json'], { cwd: directory });
  expect(again.exitCode).toBe(0);
  expect(eventsOf(again)).toContainEqual({ event: 'verified', sha256: found });
  expect(eventsOf(again).at(-1)).toMatchObject({ event: 'done', sourceBytes: 0 });
  expect(Object.keys(contentsOf(directory))).toEqual(['disk', 'image']);
});
