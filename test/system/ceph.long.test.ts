/**
 * Ceph as an origin: S3 as its radosgw speaks it, with right and wrong credentials, and RBD through qemu-nbd. Servers
 * die in the middle of a copy.
 */

import { createHash, createHmac } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { s3Source } from '../../src/sources/s3/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { type JsonEvent, type Result, startCommand } from '../cli/command.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { mustRun, runProgram, startProgram } from '../support/programs.ts';
import { describeWith, haveTool } from '../support/tools.ts';

const TOOLS = [
  'ceph-mon',
  'ceph-osd',
  'ceph-mgr',
  'radosgw',
  'radosgw-admin',
  'ceph',
  'rbd',
  'monmaptool',
  'ceph-authtool',
];
const SCRIPT = join(import.meta.dirname, '../support/ceph.sh');
const IMAGE = seededRandom(21).fill(new Uint8Array(32 << 20));
const KEYS = { accessKeyId: 'AKTEST', secretAccessKey: 'SKTEST-s3cr3t' };

/** QEMU's driver for RBD, which is a package of its own. */
const RBD_DRIVER = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib']
  .map((folder) => join(folder, 'qemu/block-rbd.so'))
  .find((path) => existsSync(path));

describeWith(TOOLS, 'Ceph', () => {
  let folder: string;
  let origin: string;

  beforeAll(async () => {
    // Unix sockets need a short path.
    folder = mkdtempSync(join(tmpdir(), 'cod-ceph-'));
    const [accessKey, secret] = Object.values(KEYS);
    const started = await mustRun('bash', SCRIPT, 'start', folder, accessKey!, secret!);
    origin = /^http:\S+$/m.exec(started)![0];
    await put('/images', new Uint8Array());
    await put('/images/a%20b/disk.raw', IMAGE);
  });

  afterAll(async () => {
    await runProgram('bash', SCRIPT, 'stop', folder);
    rmSync(folder, { recursive: true, force: true });
  });

  /** Signs by other code than ours. */
  async function put(path: string, body: Uint8Array): Promise<void> {
    const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();
    const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
    const hash = createHash('sha256').update(body).digest('hex');
    const scope = `${time.slice(0, 8)}/us-east-1/s3/aws4_request`;
    const names = 'host;x-amz-content-sha256;x-amz-date';
    const headers = `host:${new URL(origin).host}\nx-amz-content-sha256:${hash}\nx-amz-date:${time}\n`;
    const canonical = createHash('sha256').update(`PUT\n${path}\n\n${headers}\n${names}\n${hash}`).digest('hex');
    const key = scope.split('/').reduce<string | Buffer>(hmac, `AWS4${KEYS.secretAccessKey}`);
    const signature = hmac(key, `AWS4-HMAC-SHA256\n${time}\n${scope}\n${canonical}`).toString('hex');
    const credential = `Credential=${KEYS.accessKeyId}/${scope}`;
    const authorization = `AWS4-HMAC-SHA256 ${credential}, SignedHeaders=${names}, Signature=${signature}`;
    const sent = { 'x-amz-content-sha256': hash, 'x-amz-date': time, authorization };
    const response = await fetch(origin + path, { method: 'PUT', headers: sent, body: Buffer.from(body) });
    expect(`${response.status} ${await response.text()}`).toBe('200 ');
  }

  async function copy(
    cwd: string,
    options: readonly string[] = [],
    env: NodeJS.ProcessEnv = {},
    onLine?: (line: string) => void,
  ): Promise<Result> {
    const args = ['copy', 's3://images/a b/disk.raw', 'disk', '--json', '--endpoint-url', origin, ...options];
    const own = { HOME: cwd, AWS_ACCESS_KEY_ID: KEYS.accessKeyId, AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey, ...env };
    const result = await startCommand(args, { cwd, env: own, ...(onLine && { onLine }) }).result;
    expect(result.stdout + result.stderr).not.toContain('s3cr3t');
    return result;
  }

  test('radosgw gives an object to its owner', async () => {
    const home = temporaryDirectory();
    expect(await copy(home)).toMatchObject({ exitCode: 0, stderr: '' });
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
  });

  test.each([
    ['a wrong secret', { AWS_SECRET_ACCESS_KEY: 's3cr3t' }, /COD_SOURCE_IO: .*403.*SignatureDoesNotMatch/],
    ['an unknown key', { AWS_ACCESS_KEY_ID: 'AKNONE' }, /COD_SOURCE_IO: .*403.*InvalidAccessKeyId/],
    ['no credentials', { AWS_ACCESS_KEY_ID: '' }, /COD_SOURCE_IO: .*403.*AccessDenied.*no AWS credentials/],
  ])('radosgw refuses %s', async (_, env, says) => {
    const home = temporaryDirectory();
    expect(await copy(home, [], env)).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(says) });
    expect(contentsOf(home)).toEqual({});
  });

  test('radosgw takes a signature for any region', async () => {
    const home = temporaryDirectory();
    expect(await copy(home, [], { AWS_REGION: 'eu-central-1' })).toMatchObject({ exitCode: 0 });
  });

  test('radosgw gets new credentials when it refuses the old ones', async () => {
    const given = [KEYS, { accessKeyId: 'AKNEXT', secretAccessKey: 'SKNEXT' }];
    const key = ['radosgw-admin', '-c', join(folder, 'ceph.conf'), 'key'] as const;
    const of = ['--uid=t', '--key-type=s3'] as const;
    await mustRun(key[0], ...key.slice(1), 'create', ...of, '--access-key=AKOLD', '--secret-key=SKOLD');
    given[0] = { accessKeyId: 'AKOLD', secretAccessKey: 'SKOLD' };
    await mustRun(key[0], ...key.slice(1), 'create', ...of, '--access-key=AKNEXT', '--secret-key=SKNEXT');
    let calls = 0;
    const credentials = () => given[Math.min(calls++, 1)];
    const source = await s3Source({ bucket: 'images', key: 'a b/disk.raw', endpoint: origin, credentials });
    await mustRun(key[0], ...key.slice(1), 'rm', ...of, '--access-key=AKOLD');
    const into = new Uint8Array(4096);
    await source.read(into, 1 << 20);
    expect(Buffer.from(into).equals(IMAGE.subarray(1 << 20, (1 << 20) + 4096))).toBe(true);
    expect(calls).toBe(2);
    await source.close();
  });

  test.each([
    ['radosgw', 'client.rgw', 'retry'],
    ['the OSD', 'osd.0', undefined],
  ])('a copy from radosgw survives the loss of %s in the middle', async (_, daemon, until) => {
    const home = temporaryDirectory();
    const seen: string[] = [];
    const ceph = (what: string) => mustRun('bash', SCRIPT, what, folder, daemon);
    let killing: Promise<unknown> | undefined;
    let reviving: Promise<unknown> | undefined;
    const onLine = (line: string) => {
      const { event, bytes } = JSON.parse(line) as JsonEvent & { bytes?: number };
      seen.push(event);
      if (event === 'progress' && bytes! >= 4 << 20) killing ??= ceph('kill');
      if (killing !== undefined && (until === undefined || event === until))
        reviving ??= killing.then(() => ceph('revive'));
    };
    expect(await copy(home, ['--rate', '4M'], {}, onLine)).toMatchObject({ exitCode: 0 });
    await reviving;
    expect(reviving).toBeDefined();
    if (until !== undefined) expect(seen).toContain('recovered');
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
  });

  test.skipIf(RBD_DRIVER === undefined || !haveTool('qemu-nbd'))(
    'a copy from RBD through qemu-nbd survives the loss of the OSD in the middle',
    async () => {
      const home = temporaryDirectory();
      const conf = join(folder, 'ceph.conf');
      writeFileSync(join(home, 'image'), IMAGE);
      await mustRun('ceph', '-c', conf, 'osd', 'pool', 'create', 'rbd', '8');
      await mustRun('rbd', '-c', conf, '-p', 'rbd', 'import', join(home, 'image'), 'disk');
      const socket = join(home, 's');
      const server = startProgram('qemu-nbd', '-r', '-t', '-f', 'raw', '-k', socket, `rbd:rbd/disk:conf=${conf}`);
      onTestFinished(async () => {
        server.child.kill('SIGTERM');
        await server.outcome;
      });
      while (!existsSync(socket)) await sleep(20);
      let lost: Promise<unknown> | undefined;
      const ceph = (what: string): Promise<string> => mustRun('bash', SCRIPT, what, folder, 'osd.0');
      const onLine = (line: string): void => {
        const { event, bytes } = JSON.parse(line) as JsonEvent & { bytes?: number };
        if (event === 'progress' && bytes! >= 4 << 20) lost ??= ceph('kill').then(() => ceph('revive'));
      };
      const args = ['copy', `nbd+unix:///?socket=${socket}`, 'disk', '--json', '--rate', '4M'];
      const result = await startCommand(args, { cwd: home, onLine }).result;
      await lost;
      expect(lost).toBeDefined();
      expect(result.exitCode, result.stderr).toBe(0);
      expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
    },
  );
});
