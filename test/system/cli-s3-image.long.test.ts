/** qcow2 images in S3, with their backing files in the same bucket, in another one, and elsewhere. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { type Result, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { diskBytes, qemu, qemuTools } from '../sources/qcow2/images.ts';
import { expectBytes } from '../support/bytes.ts';
import { serveFile } from '../support/range-server.ts';
import { S3RVER_KEYS, startS3rver } from '../support/s3rver.ts';
import { describeWith } from '../support/tools.ts';

describeWith(qemuTools, 'a backing file of a qcow2 image in S3', () => {
  let folder: string;
  let server: Awaited<ReturnType<typeof startS3rver>>;
  let expected: Buffer;

  /** Makes two layers. What they name is set by {@link upload}. */
  beforeEach(async () => {
    folder = temporaryDirectory();
    server = await startS3rver();
    writeFileSync(join(folder, 'base.raw'), diskBytes(2));
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', join(folder, 'middle'));
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 64k', join(folder, 'middle'));
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', join(folder, 'top'));
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 9 2M 64k', join(folder, 'top'));
    qemu('qemu-img', 'convert', '-O', 'raw', join(folder, 'top'), join(folder, 'expected'));
    expected = readFileSync(join(folder, 'expected'));
  });

  /** Uploads a file under a key, percent-encoded. If it is an image, it names its backing file so. */
  async function upload(file: string, path: string, backing?: string): Promise<void> {
    const format = file === 'top' ? 'qcow2' : 'raw';
    if (backing !== undefined)
      qemu('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', backing, '-F', format, join(folder, file));
    await server.put(path, readFileSync(join(folder, file)));
  }

  async function copy(source: string, ...backing: string[]): Promise<Result> {
    const flags = ['--quiet', '--endpoint-url', server.origin, ...backing.flatMap((file) => ['--backing', file])];
    const env = {
      HOME: folder,
      AWS_ACCESS_KEY_ID: S3RVER_KEYS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: S3RVER_KEYS.secretAccessKey,
    };
    return startCommand(['copy', source, 'disk', ...flags], { cwd: folder, env }).result;
  }

  function expectCopied(result: Result): void {
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expectBytes(readFileSync(join(folder, 'disk')), expected);
  }

  test.each([
    ['beside the image', ['top', 'middle', 'base.raw'], ['middle', 'base.raw']],
    ['in folders', ['vm/a/top', 'vm/middle', 'gold/base%20%251.raw'], ['../middle', '../gold/./base %1.raw']],
    [
      'in folders that look odd',
      ['vm/%C3%BC%2B/top', 'vm/%C3%BC%2B/x/middle', 'base.raw'],
      ['x/middle', '../../../base.raw'],
    ],
  ])('is read with --backing allow, %s', async (_, paths, names) => {
    await upload('top', paths[0]!, names[0]);
    await upload('middle', paths[1]!, names[1]);
    await upload('base.raw', paths[2]!);
    expectCopied(await copy(`s3://images/${decodeURIComponent(paths[0]!)}`, 'allow'));
  });

  test('is given by --backing: from the bucket, from another server, from a file', async () => {
    await upload('top', 'top', '/nowhere');
    await upload('middle', 'middle', '/nowhere');
    const base = await serveFile(join(folder, 'base.raw'));
    try {
      expectCopied(await copy('s3://images/top', 's3://images/middle', base.url));
    } finally {
      await base.close();
    }
    expect((await copy('s3://images/top', join(folder, 'middle'), 'base.raw')).stderr).toMatch(/COD_EXISTS/);
  });

  test.each([
    ['a file of the machine', '/etc/hostname', /COD_UNSUPPORTED: .*not in the same bucket/],
    ['a URL', 'http://127.0.0.1:9/base.raw', /COD_UNSUPPORTED: .*not in the same bucket/],
    ['an object of another bucket', 's3://other/base.raw', /COD_UNSUPPORTED: .*not in the same bucket/],
    ['what is above the bucket', '../../other/base.raw', /COD_UNSUPPORTED: .*not in the same bucket/],
    ['the folder above', '..', /COD_UNSUPPORTED: .*not in the same bucket/],
    ['a missing object', 'missing', /COD_NOT_FOUND: .*NoSuchKey/],
  ])('is not opened if it is %s', async (_, name, says) => {
    await upload('middle', 'vm/middle', name);
    expect(await copy('s3://images/vm/middle', 'allow')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(says),
    });
  });
});
