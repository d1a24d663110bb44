/** `s3://` sources of the command, over servers that verify signatures: ours, and s3rver. */

import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { eventsOf, MAIN, type Result, startCommand } from '../cli/command.ts';
import { IMAGE_BYTES, imageBytes } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { type Behaviour, HostileServer } from '../support/http-server.ts';
import { startServe } from '../support/programs.ts';
import { type S3State, s3, s3State } from '../support/s3-server.ts';
import { S3RVER_KEYS, startS3rver } from '../support/s3rver.ts';

const IMAGE = imageBytes();
const KEYS = { AWS_ACCESS_KEY_ID: 'AKIDTEST', AWS_SECRET_ACCESS_KEY: 's3cr3t+key', AWS_SESSION_TOKEN: 's3cr3t-token' };

async function serve(behave: (state: S3State) => Behaviour = s3): Promise<{ server: HostileServer; state: S3State }> {
  const state = s3State({
    keys: new Map([[KEYS.AWS_ACCESS_KEY_ID, { secret: KEYS.AWS_SECRET_ACCESS_KEY, token: KEYS.AWS_SESSION_TOKEN }]]),
    objects: new Map([['/images/disk.raw', []]]),
  });
  const server = await HostileServer.start(IMAGE, behave(state));
  onTestFinished(() => server.stop());
  return { server, state };
}

/** Runs the command in `cwd`, which is the user's home, too. */
async function run(cwd: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<Result> {
  const result = await startCommand(args, { cwd, env: environment(cwd, env) }).result;
  const seen = [result.stdout, result.stderr];
  for (const [name, contents] of Object.entries(contentsOf(cwd)))
    if (/\.(bak|wil|lock)/.test(name) && contents !== 'no file') seen.push(readFileSync(join(cwd, name), 'latin1'));
  expect(seen.join('\n')).not.toMatch(/s3cr3t|Signature=[0-9a-f]/);
  return result;
}

/** The variables of this user only. */
function environment(home: string, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const none = Object.keys(process.env).filter((name) => name.startsWith('AWS_'));
  return { ...Object.fromEntries(none.map((name) => [name, undefined])), HOME: home, ...env };
}

describe('copy from S3', () => {
  test('with the credentials and the endpoint of the environment', async () => {
    const { server } = await serve();
    const home = temporaryDirectory();
    const env = { ...KEYS, AWS_ENDPOINT_URL: server.origin };
    const result = await run(home, ['copy', 's3://images/disk.raw', 'disk', '--json'], env);
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
    expect(eventsOf(result)[0]).toMatchObject({ event: 'start', source: 's3://images/disk.raw', size: IMAGE_BYTES });
  });

  test('with a profile, and an option that outranks its endpoint', async () => {
    const { server, state } = await serve();
    state.region = 'eu-west-3';
    const home = temporaryDirectory();
    mkdirSync(join(home, '.aws'));
    writeFileSync(join(home, '.aws/credentials'), credentialsFile('lab', KEYS));
    writeFileSync(join(home, '.aws/config'), '[profile lab]\nregion = eu-west-3\nendpoint_url = http://127.0.0.1:9\n');
    const args = ['copy', 's3://images/disk.raw', 'disk', '--quiet', '--endpoint-url', server.origin];
    expect(await run(home, args, { AWS_PROFILE: 'lab' })).toMatchObject({ exitCode: 0, stderr: '' });
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
    expect(state.refusals).toEqual([]);
  });

  test('reads the shared file again when the credentials have expired', async () => {
    const home = temporaryDirectory();
    mkdirSync(join(home, '.aws'));
    writeFileSync(join(home, '.aws/credentials'), credentialsFile('default', KEYS));
    const { server, state } = await serve((state) => {
      const next = {
        AWS_ACCESS_KEY_ID: 'AKIDNEXT',
        AWS_SECRET_ACCESS_KEY: 's3cr3t-next',
        AWS_SESSION_TOKEN: 's3cr3t-2',
      };
      const answer = s3(state);
      return (ask) => {
        // The first request for contents comes too late.
        if (!ask.isOpening && !state.keys.has('AKIDNEXT')) {
          state.keys.get(KEYS.AWS_ACCESS_KEY_ID)!.isExpired = true;
          state.keys.set('AKIDNEXT', { secret: next.AWS_SECRET_ACCESS_KEY, token: next.AWS_SESSION_TOKEN });
          writeFileSync(join(home, '.aws/credentials'), credentialsFile('default', next));
        }
        return answer(ask);
      };
    });
    const args = ['copy', 's3://images/disk.raw', 'disk', '--quiet', '--retries', '0'];
    expect(await run(home, args, { AWS_ENDPOINT_URL: server.origin })).toMatchObject({ exitCode: 0, stderr: '' });
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
    expect(new Set(state.refusals)).toEqual(new Set(['ExpiredToken']));
  });

  test("with AWS's own chain of credentials, where its package is installed", async () => {
    const { server } = await serve();
    const home = temporaryDirectory();
    mkdirSync(join(home, '.aws'));
    writeFileSync(join(home, '.aws/config'), '[profile lab]\nrole_arn = arn:aws:iam::1:role/reader\n');
    const packages = join(home, 'node_modules');
    const main = join(packages, 'copyondemand/dist/cli/main.js');
    cpSync(MAIN, main);
    cpSync(join(MAIN, '../../../package.json'), join(packages, 'copyondemand/package.json'));
    const copy = () =>
      startCommand(['copy', 's3://images/disk.raw', 'disk', '--quiet'], {
        cwd: home,
        env: environment(home, { AWS_PROFILE: 'lab', AWS_ENDPOINT_URL: server.origin }),
        main,
      }).result;
    const refused = await copy();
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(/COD_UNSUPPORTED: role_arn of lab needs .*@aws-sdk\/credential-providers/);

    const chain = join(packages, '@aws-sdk/credential-providers');
    mkdirSync(chain, { recursive: true });
    writeFileSync(join(chain, 'package.json'), '{ "type": "module", "exports": "./index.js" }');
    const [accessKeyId, secretAccessKey, sessionToken] = Object.values(KEYS);
    const keys = JSON.stringify({ accessKeyId, secretAccessKey, sessionToken, expiration: '2026-01-01T00:00:00Z' });
    writeFileSync(
      join(chain, 'index.js'),
      `export const fromNodeProviderChain = ({ profile }) => async () => {
        if (profile !== 'lab') throw new Error('another profile');
        return ${keys};
      };`,
    );
    expect(await copy()).toMatchObject({ exitCode: 0, stderr: '' });
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
  });

  test('of a public object', async () => {
    const { server, state } = await serve();
    state.open.add('/images/disk.raw');
    const home = temporaryDirectory();
    const env = { AWS_ENDPOINT_URL: server.origin };
    expect(await run(home, ['copy', 's3://images/disk.raw', 'a', '--quiet'], env)).toMatchObject({ exitCode: 0 });
    const wrong = { ...env, ...KEYS, AWS_SECRET_ACCESS_KEY: 'wrong' };
    const args = ['copy', 's3://images/disk.raw', 'b', '--quiet', '--no-sign-request'];
    expect(await run(home, args, wrong)).toMatchObject({ exitCode: 0, stderr: '' });
    expect(server.asks.some((ask) => ask.headers['authorization'] !== undefined)).toBe(false);
  });

  test.each([
    [
      'a wrong secret',
      { ...KEYS, AWS_SECRET_ACCESS_KEY: 's3cr3t-wrong' },
      /COD_SOURCE_IO: .*403.*SignatureDoesNotMatch/,
    ],
    ['an unknown key', { ...KEYS, AWS_ACCESS_KEY_ID: 'AKIDNOBODY' }, /COD_SOURCE_IO: .*403.*InvalidAccessKeyId/],
    ['an expired token', { ...KEYS, AWS_SESSION_TOKEN: 's3cr3t-old' }, /COD_SOURCE_IO: .*400.*InvalidToken/],
    ['no credentials', {}, /COD_SOURCE_IO: .*403.*AccessDenied.*no AWS credentials were found/],
    ['a profile that does not exist', { AWS_PROFILE: 'missing' }, /COD_NOT_FOUND: .*missing/],
  ])('refuses %s', async (_, env, says) => {
    const { server } = await serve();
    const home = temporaryDirectory();
    const args = ['copy', 's3://images/disk.raw', 'disk', '--endpoint-url', server.origin];
    const result = await run(home, args, env);
    expect(result).toMatchObject({ exitCode: 1, stdout: '' });
    expect(result.stderr).toMatch(says);
    expect(contentsOf(home)).toEqual({});
  });

  test('says that an object does not exist', async () => {
    const { server } = await serve();
    const args = ['copy', 's3://images/missing', 'disk', '--endpoint-url', server.origin];
    const result = await run(temporaryDirectory(), args, KEYS);
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toMatch(/^copyondemand: COD_NOT_FOUND: .*NoSuchKey/);
  });
});

test('serve from S3 shows the object as source', async () => {
  const { server } = await serve();
  const home = temporaryDirectory();
  const target = join(home, 'disk');
  for (const [name, value] of Object.entries(environment(home, KEYS))) vi.stubEnv(name, value);
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
  const served = await startServe(
    's3://images/disk.raw',
    target,
    '--socket',
    join(home, 's'),
    '--no-hydrate',
    '--endpoint-url',
    server.origin,
  );
  const status = await run(home, ['status', 'disk', '--json'], {});
  expect(JSON.parse(status.stdout)).toMatchObject({ source: 's3://images/disk.raw', state: 'idle' });
  expect((await served.stop()).stderr).not.toMatch(/s3cr3t/);
});

describe('copy from s3rver', () => {
  const env = { AWS_ACCESS_KEY_ID: S3RVER_KEYS.accessKeyId, AWS_SECRET_ACCESS_KEY: S3RVER_KEYS.secretAccessKey };
  const sha256 = createHash('sha256').update(IMAGE).digest('hex');

  test('with its keys, and again after it was killed', async () => {
    const { origin, put } = await startS3rver();
    await put('a%20b/disk.raw', IMAGE);
    const home = temporaryDirectory();
    const args = ['copy', 's3://images/a b/disk.raw', 'disk', '--endpoint-url', origin, '--json'];
    const copying = startCommand([...args, '--rate', '256k'], {
      cwd: home,
      env: environment(home, env),
      onLine: (line) => line.includes('"event":"progress"') && copying.child.kill('SIGKILL'),
    });
    expect(await copying.result).toMatchObject({ signal: 'SIGKILL' });
    const result = await run(home, [...args, '--sha256', sha256], env);
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(eventsOf(result)[0]?.['identity']).toMatch(/^etag:"[0-9a-f]{32}"$/);
  });

  test('but not of an object that was replaced in the middle', async () => {
    const { origin, put } = await startS3rver();
    await put('disk.raw', IMAGE);
    const home = temporaryDirectory();
    const args = ['copy', 's3://images/disk.raw', 'disk', '--endpoint-url', origin, '--json'];
    const copying = startCommand([...args, '--rate', '256k'], {
      cwd: home,
      env: environment(home, env),
      onLine: (line) => line.includes('"event":"progress"') && copying.child.kill('SIGKILL'),
    });
    expect(await copying.result).toMatchObject({ signal: 'SIGKILL' });
    await put('disk.raw', imageBytes(2));
    expect(await run(home, args, env)).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/^copyondemand: COD_SOURCE_CHANGED: /),
    });
    // The image is back, so the copy continues.
    await put('disk.raw', IMAGE);
    expect(await run(home, [...args, '--sha256', sha256], env)).toMatchObject({ exitCode: 0 });
  });

  test.each([
    ['a wrong secret', { ...env, AWS_SECRET_ACCESS_KEY: 's3cr3t' }, 'disk.raw', /SOURCE_IO: .*SignatureDoesNotMatch/],
    ['an unknown key', { ...env, AWS_ACCESS_KEY_ID: 'AKNONE' }, 'disk.raw', /SOURCE_IO: .*InvalidAccessKeyId/],
    ['a missing object', env, 'missing', /COD_NOT_FOUND: .*NoSuchKey/],
  ])('refuses %s', async (_, keys, key, says) => {
    const { origin, put } = await startS3rver();
    await put('disk.raw', IMAGE);
    const home = temporaryDirectory();
    const result = await run(home, ['copy', `s3://images/${key}`, 'disk', '--endpoint-url', origin], keys);
    expect(result).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(says) });
    expect(contentsOf(home)).toEqual({});
  });
});

function credentialsFile(profile: string, keys: typeof KEYS): string {
  return `[${profile}]\n${Object.entries(keys)
    .map(([name, value]) => `${name.toLowerCase()} = ${value}\n`)
    .join('')}`;
}
