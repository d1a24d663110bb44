/**
 * Ceph as an origin: S3 as its radosgw speaks it, with right, wrong and revoked credentials, and RBD through qemu-nbd.
 * Servers die in the middle of a copy.
 */

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { httpSource } from '../../src/sources/http/source.ts';
import { s3Source } from '../../src/sources/s3/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, type JsonEvent, type Result, startCommand } from '../cli/command.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { CEPH_TOOLS, Ceph, type CephDaemon, RBD_DRIVER, type S3Keys } from '../support/ceph.ts';
import { mustRun, startProgram, startServe } from '../support/programs.ts';
import { describeWith, haveTool } from '../support/tools.ts';

const IMAGE = seededRandom(21).fill(new Uint8Array(32 << 20));
const IMAGE_PATH = '/images/a%20b/disk.raw';
const KEYS: S3Keys = { accessKeyId: 'AKTEST', secretAccessKey: 'SKTEST-s3cr3t' };

describeWith(CEPH_TOOLS, 'Ceph', () => {
  let ceph: Ceph;
  let origin: string;

  beforeAll(async () => {
    ceph = await Ceph.start(KEYS);
    origin = ceph.origin;
    await ceph.put('/images', new Uint8Array());
    await ceph.put(IMAGE_PATH, IMAGE);
  });

  afterAll(() => ceph.stop());

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
    const [old, next] = [1, 2].map((n) => ({ accessKeyId: `AKLIB${n}`, secretAccessKey: `SKLIB${n}` }));
    await ceph.changeKey('create', old!);
    await ceph.changeKey('create', next!);
    let calls = 0;
    const credentials = () => (calls++ === 0 ? old : next);
    const source = await s3Source({ bucket: 'images', key: 'a b/disk.raw', endpoint: origin, credentials });
    await ceph.changeKey('rm', old!);
    const into = new Uint8Array(4096);
    await source.read(into, 1 << 20);
    expect(Buffer.from(into).equals(IMAGE.subarray(1 << 20, (1 << 20) + 4096))).toBe(true);
    expect(calls).toBe(2);
    await source.close();
  });

  test('a copy reads the shared file again when radosgw refuses its credentials in the middle', async () => {
    const home = temporaryDirectory();
    const [old, next] = [1, 2].map((n) => ({ accessKeyId: `AKFILE${n}`, secretAccessKey: `s3cr3t${n}` }));
    for (const keys of [old!, next!]) await ceph.changeKey('create', keys);
    mkdirSync(join(home, '.aws'));
    const share = ({ accessKeyId, secretAccessKey }: typeof KEYS): void =>
      writeFileSync(
        join(home, '.aws/credentials'),
        `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
      );
    share(old!);
    // The copy cannot end before the key is gone.
    writeFileSync(join(home, 'rate'), '256k');
    let revoking: Promise<void> | undefined;
    const onLine = (line: string): void => {
      if ((JSON.parse(line) as JsonEvent).event !== 'progress') return;
      revoking ??= (async () => {
        share(next!);
        await ceph.changeKey('rm', old!);
        writeFileSync(join(home, 'rate'), 'unlimited');
      })();
    };
    const none = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' };
    const result = await copy(home, ['--rate-file', 'rate', '--retries', '0'], none, onLine);
    await revoking;
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(eventsOf(result).map(({ event }) => event)).not.toContain('retry');
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
  });

  test('the function for a URL is asked again when its presigned URL has expired', async () => {
    const brief = { accessKeyId: 'AKBRIEF', secretAccessKey: 'SKBRIEF' };
    await ceph.changeKey('create', brief);
    const urls: string[] = [];
    const give = (url: string): string => {
      urls.push(url);
      return url;
    };
    // Expired before it is used; then it expires in use; then its key is revoked.
    const source = await httpSource(() => {
      if (urls.length === 0) return give(ceph.presigned(IMAGE_PATH, Date.now() - 3_600_000, 60));
      return give(
        ceph.presigned(IMAGE_PATH, Date.now(), urls.length === 1 ? 10 : 3600, urls.length === 2 ? brief : KEYS),
      );
    });
    onTestFinished(() => source.close());
    expect(urls).toHaveLength(2);
    const read = async (): Promise<void> => {
      const into = new Uint8Array(4096);
      await source.read(into, 1 << 20);
      expect(Buffer.from(into).equals(IMAGE.subarray(1 << 20, (1 << 20) + 4096))).toBe(true);
    };
    const isRefused = async (): Promise<boolean> => {
      const response = await fetch(urls.at(-1)!, { headers: { range: 'bytes=0-0' } });
      await response.arrayBuffer();
      return response.status === 403;
    };
    while (!(await isRefused())) await sleep(200);
    await read();
    expect(urls).toHaveLength(3);
    await ceph.changeKey('rm', brief);
    expect(await isRefused()).toBe(true);
    await read();
    expect(urls).toHaveLength(4);
  });

  test.skipIf(!haveTool('nbdsh') || !haveTool('nbdcopy'))(
    'an export from radosgw is read by other programs, cold and complete',
    async () => {
      const home = temporaryDirectory();
      const env = { HOME: home, AWS_ACCESS_KEY_ID: KEYS.accessKeyId, AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey };
      for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
      onTestFinished(() => void vi.unstubAllEnvs());
      const target = join(home, 'disk');
      const args = ['s3://images/a b/disk.raw', target, '--endpoint-url', origin, '--socket', join(home, 's')];
      const cold = await startServe(...args, '--no-hydrate');
      const digest = 'import hashlib; print(hashlib.sha256(h.pread(1 << 20, 20 << 20)).hexdigest())';
      const expected = createHash('sha256').update(IMAGE.subarray(20 << 20, 21 << 20));
      expect((await mustRun('nbdsh', '-u', cold.uri, '-c', digest)).trim()).toBe(expected.digest('hex'));
      expect(await cold.stop()).toMatchObject({ exitCode: 0, stderr: '' });

      const served = await startServe(...args);
      await served.warns(`${target}: complete`);
      await mustRun('nbdcopy', served.uri, join(home, 'read'));
      expect(readFileSync(join(home, 'read')).equals(IMAGE)).toBe(true);
      expect((await served.stop()).exitCode).toBe(0);
      expect(await startCommand(['finish', target]).result).toMatchObject({ exitCode: 0 });
      expect(readFileSync(target).equals(IMAGE)).toBe(true);
    },
  );

  test('an export begins with credentials that radosgw accepts only', async () => {
    const home = temporaryDirectory();
    const args = ['serve', 's3://images/a b/disk.raw', 'disk', '--endpoint-url', origin, '--socket', join(home, 's')];
    const env = { HOME: home, AWS_ACCESS_KEY_ID: KEYS.accessKeyId, AWS_SECRET_ACCESS_KEY: 's3cr3t' };
    const result = await startCommand(args, { cwd: home, env }).result;
    expect(result).toMatchObject({ exitCode: 1, stdout: '', stderr: expect.stringMatching(/SignatureDoesNotMatch/) });
    expect(contentsOf(home)).toEqual({});
  });

  test.each<[string, CephDaemon, 'retry' | undefined]>([
    ['radosgw', 'client.rgw', 'retry'],
    ['the OSD', 'osd.0', undefined],
  ])('a copy from radosgw survives the loss of %s in the middle', async (_, daemon, until) => {
    const home = temporaryDirectory();
    const seen: string[] = [];
    let killing: Promise<unknown> | undefined;
    let reviving: Promise<unknown> | undefined;
    const onLine = (line: string) => {
      const { event, bytes } = JSON.parse(line) as JsonEvent & { bytes?: number };
      seen.push(event);
      if (event === 'progress' && bytes! >= 4 << 20) killing ??= ceph.kill(daemon);
      if (killing !== undefined && (until === undefined || event === until))
        reviving ??= killing.then(() => ceph.revive(daemon));
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
      const device = await ceph.createBlockDevice('disk', IMAGE);
      const socket = join(home, 's');
      const server = startProgram('qemu-nbd', '-r', '-t', '-f', 'raw', '-k', socket, device);
      onTestFinished(async () => {
        server.child.kill('SIGTERM');
        await server.outcome;
      });
      while (!existsSync(socket)) await sleep(20);
      let lost: Promise<unknown> | undefined;
      const onLine = (line: string): void => {
        const { event, bytes } = JSON.parse(line) as JsonEvent & { bytes?: number };
        if (event === 'progress' && bytes! >= 4 << 20) lost ??= ceph.kill('osd.0').then(() => ceph.revive('osd.0'));
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
