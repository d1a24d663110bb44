/**
 * Ceph as an origin: S3 as its radosgw speaks it, with right, wrong and revoked credentials, and RBD through qemu-nbd.
 * Servers die in the middle of a copy.
 */

import { createHash, createHmac } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { httpSource } from '../../src/sources/http/source.ts';
import { s3Source } from '../../src/sources/s3/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, type JsonEvent, type Result, startCommand } from '../cli/command.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { mustRun, runProgram, startProgram, startServe } from '../support/programs.ts';
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
const IMAGE_PATH = '/images/a%20b/disk.raw';
const KEYS = { accessKeyId: 'AKTEST', secretAccessKey: 'SKTEST-s3cr3t' };

/** QEMU's driver for RBD, which is a package of its own. */
const RBD_DRIVER = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib']
  .map((folder) => join(folder, 'qemu/block-rbd.so'))
  .find((path) => existsSync(path));

/** Signs by other code than ours. */
function signatureOf(canonical: string, time: string, secret: string): string {
  const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const key = scopeOf(time).split('/').reduce<string | Buffer>(hmac, `AWS4${secret}`);
  const hash = createHash('sha256').update(canonical).digest('hex');
  return hmac(key, `AWS4-HMAC-SHA256\n${time}\n${scopeOf(time)}\n${hash}`).toString('hex');
}

function scopeOf(time: string): string {
  return `${time.slice(0, 8)}/us-east-1/s3/aws4_request`;
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d+/g, '');
}

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
    await put(IMAGE_PATH, IMAGE);
  });

  afterAll(async () => {
    await runProgram('bash', SCRIPT, 'stop', folder);
    rmSync(folder, { recursive: true, force: true });
  });

  async function put(path: string, body: Uint8Array): Promise<void> {
    const time = timeOf(Date.now());
    const hash = createHash('sha256').update(body).digest('hex');
    const names = 'host;x-amz-content-sha256;x-amz-date';
    const headers = `host:${new URL(origin).host}\nx-amz-content-sha256:${hash}\nx-amz-date:${time}\n`;
    const signature = signatureOf(`PUT\n${path}\n\n${headers}\n${names}\n${hash}`, time, KEYS.secretAccessKey);
    const credential = `Credential=${KEYS.accessKeyId}/${scopeOf(time)}`;
    const authorization = `AWS4-HMAC-SHA256 ${credential}, SignedHeaders=${names}, Signature=${signature}`;
    const sent = { 'x-amz-content-sha256': hash, 'x-amz-date': time, authorization };
    const response = await fetch(origin + path, { method: 'PUT', headers: sent, body: Buffer.from(body) });
    expect(`${response.status} ${await response.text()}`).toBe('200 ');
  }

  /** Returns a URL for the image that is signed at `atMs`, and expires after `seconds`. */
  function presigned(atMs: number, seconds: number, keys = KEYS): string {
    const time = timeOf(atMs);
    const query = new URLSearchParams({
      'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
      'X-Amz-Credential': `${keys.accessKeyId}/${scopeOf(time)}`,
      'X-Amz-Date': time,
      'X-Amz-Expires': String(seconds),
      'X-Amz-SignedHeaders': 'host',
    });
    const canonical = `GET\n${IMAGE_PATH}\n${query}\nhost:${new URL(origin).host}\n\nhost\nUNSIGNED-PAYLOAD`;
    query.set('X-Amz-Signature', signatureOf(canonical, time, keys.secretAccessKey));
    return `${origin}${IMAGE_PATH}?${query}`;
  }

  /** Gives the user `t` another key, or takes it away. */
  async function changeKey(what: 'create' | 'rm', { accessKeyId, secretAccessKey }: typeof KEYS): Promise<void> {
    const secret = what === 'create' ? [`--secret-key=${secretAccessKey}`] : [];
    const of = ['--uid=t', '--key-type=s3', `--access-key=${accessKeyId}`, ...secret];
    await mustRun('radosgw-admin', '-c', join(folder, 'ceph.conf'), 'key', what, ...of);
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
    const [old, next] = [1, 2].map((n) => ({ accessKeyId: `AKLIB${n}`, secretAccessKey: `SKLIB${n}` }));
    await changeKey('create', old!);
    await changeKey('create', next!);
    let calls = 0;
    const credentials = () => (calls++ === 0 ? old : next);
    const source = await s3Source({ bucket: 'images', key: 'a b/disk.raw', endpoint: origin, credentials });
    await changeKey('rm', old!);
    const into = new Uint8Array(4096);
    await source.read(into, 1 << 20);
    expect(Buffer.from(into).equals(IMAGE.subarray(1 << 20, (1 << 20) + 4096))).toBe(true);
    expect(calls).toBe(2);
    await source.close();
  });

  test('a copy reads the shared file again when radosgw refuses its credentials in the middle', async () => {
    const home = temporaryDirectory();
    const [old, next] = [1, 2].map((n) => ({ accessKeyId: `AKFILE${n}`, secretAccessKey: `s3cr3t${n}` }));
    for (const keys of [old!, next!]) await changeKey('create', keys);
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
        await changeKey('rm', old!);
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
    await changeKey('create', brief);
    const urls: string[] = [];
    const give = (url: string): string => {
      urls.push(url);
      return url;
    };
    // Expired before it is used; then it expires in use; then its key is revoked.
    const source = await httpSource(() => {
      if (urls.length === 0) return give(presigned(Date.now() - 3_600_000, 60));
      return give(presigned(Date.now(), urls.length === 1 ? 10 : 3600, urls.length === 2 ? brief : KEYS));
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
    await changeKey('rm', brief);
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
