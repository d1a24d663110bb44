/**
 * AWS's own chain of credentials, by the package that users install beside this one. This machine plays its providers:
 * a container, a machine of AWS, a process, and the service that assumes roles. Credentials expire in the middle of a
 * copy.
 */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { type Result, startCommand } from '../cli/command.ts';
import { imageBytes } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { HostileServer } from '../support/http-server.ts';
import { packInto, runLine } from '../support/packed-package.ts';
import { s3, s3State } from '../support/s3-server.ts';

const PACKAGE = '@aws-sdk/credential-providers';
const manifest = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
  peerDependencies: Record<string, string>;
};
const RANGE = manifest.peerDependencies[PACKAGE]!;
const IMAGE = imageBytes();

/** The credentials that a provider gives when it is asked for the nth time, as most providers write them. */
function credentials(n: number): { AccessKeyId: string; SecretAccessKey: string; Token: string; Expiration: string } {
  return {
    AccessKeyId: `AKID${n}`,
    SecretAccessKey: `s3cr3t${n}`,
    Token: `s3cr3t-token${n}`,
    Expiration: '2099-01-01T00:00:00Z',
  };
}

/** Plays the providers over HTTP. Counts the credentials that it gave. */
async function startProviders(): Promise<{ readonly origin: string; given: number }> {
  const providers = { origin: '', given: 0 };
  const server = createServer((ask, answer) => {
    ask.resume().on('end', () => {
      const said = answerOf(ask, () => credentials(++providers.given));
      answer.writeHead(said === undefined ? 404 : 200).end(said);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  providers.origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return providers;
}

function answerOf({ method, url, headers }: IncomingMessage, next: () => ReturnType<typeof credentials>) {
  switch (`${method} ${url}`) {
    case 'GET /container':
      return headers.authorization === 'Bearer s3cr3t' ? JSON.stringify(next()) : undefined;
    case 'PUT /latest/api/token':
      return 's3cr3t-of-the-session';
    case 'GET /latest/meta-data/iam/security-credentials/':
      return 'role';
    case 'GET /latest/meta-data/iam/security-credentials/role':
      return JSON.stringify({ Code: 'Success', Type: 'AWS-HMAC', LastUpdated: '2026-01-01T00:00:00Z', ...next() });
    case 'POST /': {
      const { Token, ...keys } = next();
      const fields = Object.entries({ ...keys, SessionToken: Token }).map(
        ([name, value]) => `<${name}>${value}</${name}>`,
      );
      const user = '<AssumedRoleUser><Arn>arn:aws:sts::1:x</Arn><AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser>';
      return `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>${user}
        <Credentials>${fields.join('')}</Credentials></AssumeRoleResult></AssumeRoleResponse>`;
    }
    default:
      return undefined;
  }
}

describe.each([
  ['lowest', /\d+\.\d+\.\d+/.exec(RANGE)![0]],
  ['newest', RANGE],
])('%s supported version of the chain, %s:', (_, spec) => {
  let place: string;

  beforeAll(async () => {
    place = mkdtempSync(join(tmpdir(), 'cod-chain-'));
    writeFileSync(join(place, 'package.json'), '{ "private": true }');
    const { tarball } = await packInto(place);
    const npm = 'npm install --prefer-offline --no-audit --no-fund --loglevel=error';
    await runLine(`${npm} '${tarball}' '${PACKAGE}@${spec}'`, place);
  });
  afterAll(() => rmSync(place, { recursive: true, force: true }));

  /** Copies from a server on which the first credentials expire with the first request for contents. */
  async function copy(home: string, env: NodeJS.ProcessEnv): Promise<Result> {
    const state = s3State({ objects: new Map([['/images/disk.raw', []]]) });
    for (const { AccessKeyId, SecretAccessKey, Token } of [1, 2].map(credentials))
      state.keys.set(AccessKeyId, { secret: SecretAccessKey, token: Token });
    const answer = s3(state);
    const server = await HostileServer.start(IMAGE, (ask) => {
      if (!ask.isOpening) state.keys.get('AKID1')!.isExpired = true;
      return answer(ask);
    });
    onTestFinished(() => server.stop());
    const none = Object.keys(process.env).filter((name) => name.startsWith('AWS_'));
    const result = await startCommand(['copy', 's3://images/disk.raw', 'disk', '--quiet', '--retries', '0'], {
      main: join(place, 'node_modules/copyondemand/dist/cli/main.js'),
      cwd: home,
      env: {
        ...Object.fromEntries(none.map((name) => [name, undefined])),
        HOME: home,
        AWS_ENDPOINT_URL_S3: server.origin,
        AWS_EC2_METADATA_DISABLED: 'true',
        // The package announces the end of its support of this Node.
        NODE_NO_WARNINGS: '1',
        ...env,
      },
    }).result;
    expect(result.stdout + result.stderr).not.toContain('s3cr3t');
    if (result.exitCode === 0) expect(new Set(state.refusals)).toEqual(new Set(['ExpiredToken']));
    return result;
  }

  function expectCopied(home: string, result: Result): void {
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(readFileSync(join(home, 'disk')).equals(IMAGE)).toBe(true);
  }

  test('a container', async () => {
    const [home, providers] = [temporaryDirectory(), await startProviders()];
    const env = {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${providers.origin}/container`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: 'Bearer s3cr3t',
    };
    expectCopied(home, await copy(home, env));
    expect(providers.given).toBe(2);
  });

  test('a container that refuses', async () => {
    const [home, providers] = [temporaryDirectory(), await startProviders()];
    const AWS_CONTAINER_CREDENTIALS_FULL_URI = `${providers.origin}/container`;
    const result = await copy(home, { AWS_CONTAINER_CREDENTIALS_FULL_URI });
    expect(result).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/COD_SOURCE_IO: AWS's credential chain/),
    });
    expect(contentsOf(home)).toEqual({});
  });

  test('a machine of AWS', async () => {
    const [home, providers] = [temporaryDirectory(), await startProviders()];
    const AWS_EC2_METADATA_SERVICE_ENDPOINT = providers.origin;
    expectCopied(home, await copy(home, { AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_DISABLED: undefined }));
    expect(providers.given).toBe(2);
  });

  test('a process', async () => {
    const home = temporaryDirectory();
    mkdirSync(join(home, '.aws'));
    for (const n of [1, 2]) {
      const { Token: SessionToken, ...keys } = credentials(n);
      writeFileSync(join(home, `keys${n}`), JSON.stringify({ Version: 1, ...keys, SessionToken }));
    }
    const script = `cd '${home}' && echo asked >> asked && cat keys$(wc -l < asked)`;
    writeFileSync(join(home, 'process'), script);
    writeFileSync(join(home, '.aws/config'), `[profile lab]\ncredential_process = sh ${join(home, 'process')}\n`);
    expectCopied(home, await copy(home, { AWS_PROFILE: 'lab' }));
    expect(readFileSync(join(home, 'asked'), 'utf8')).toBe('asked\nasked\n');
  });

  // Older versions ask AWS only.
  test.runIf(spec === RANGE)('a role', async () => {
    const [home, providers] = [temporaryDirectory(), await startProviders()];
    mkdirSync(join(home, '.aws'));
    writeFileSync(join(home, '.aws/credentials'), '[base]\naws_access_key_id = A\naws_secret_access_key = s3cr3t\n');
    const role = 'role_arn = arn:aws:iam::123456789012:role/reader\nsource_profile = base\n';
    writeFileSync(join(home, '.aws/config'), `[profile lab]\n${role}`);
    expectCopied(
      home,
      await copy(home, { AWS_PROFILE: 'lab', AWS_ENDPOINT_URL_STS: providers.origin, AWS_REGION: 'us-east-1' }),
    );
    expect(providers.given).toBe(2);
  });

  test('none', async () => {
    const home = temporaryDirectory();
    const result = await copy(home, {});
    expect(result).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/403.*no AWS credentials were found/) });
  });
});
