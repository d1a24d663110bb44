/** Networks of companies: proxies, private authorities, client certificates, and credentials in files. */

import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { eventsOf, type Result, startCommand } from '../cli/command.ts';
import { imageBytes } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { certify, makeAuthority, startTls } from '../support/certificates.ts';
import { type Ask, type Behaviour, HostileServer, honest } from '../support/http-server.ts';
import { ProxyServer } from '../support/proxy-server.ts';
import { describeWith } from '../support/tools.ts';

const IMAGE = imageBytes();
const SHA256 = createHash('sha256').update(IMAGE).digest('hex');
/** Settings of the machine that runs the tests. */
const NONE = Object.fromEntries(
  ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'SSL_CERT_FILE', 'NETRC'].flatMap((name) => [
    [name, undefined],
    [name.toLowerCase(), undefined],
  ]),
);

async function serve(behaviour: Behaviour = honest): Promise<HostileServer> {
  const server = await HostileServer.start(IMAGE, behaviour);
  onTestFinished(() => server.stop());
  return server;
}

/** Runs `copy` in `cwd`, which is the user's home, too. */
async function copy(
  cwd: string,
  source: string,
  options: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<Result> {
  const args = ['copy', source, 'disk', '--retries', '1', '--json', ...options];
  const result = await startCommand(args, { cwd, env: { ...NONE, HOME: cwd, ...env } }).result;
  expect(result.stdout + result.stderr).not.toContain('s3cr3t');
  return result;
}

function expectCopied(cwd: string, result: Result): void {
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(readFileSync(join(cwd, 'disk')).equals(IMAGE)).toBe(true);
}

function expectRefused(cwd: string, result: Result, says: RegExp): void {
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toMatch(says);
  expect(contentsOf(cwd)).not.toHaveProperty('disk');
}

describe('a proxy', () => {
  test.each(['HTTP_PROXY', 'http_proxy'])('that %s names gets the requests', async (name) => {
    const [server, proxy, home] = [await serve(), await ProxyServer.start('me:s3cr3t'), temporaryDirectory()];
    expectCopied(home, await copy(home, server.url, [], { [name]: proxy.url }));
    expect(proxy.asks.length).toBe(server.asks.length);
  });

  test('gets no requests for what NO_PROXY covers', async () => {
    const [server, proxy, home] = [await serve(), await ProxyServer.start(), temporaryDirectory()];
    expectCopied(home, await copy(home, server.url, [], { HTTP_PROXY: proxy.url, NO_PROXY: 'a,127.0.0.0/8' }));
    expect(proxy.asks).toEqual([]);
  });

  test('that denies access ends the command', async () => {
    const [server, proxy, home] = [await serve(), await ProxyServer.start('me:right'), temporaryDirectory()];
    const HTTP_PROXY = `http://me:s3cr3t@127.0.0.1:${proxy.port}`;
    expectRefused(home, await copy(home, server.url, [], { HTTP_PROXY }), /^copyondemand: COD_SOURCE_IO: .*\(407\)/);
    expect(server.asks).toEqual([]);
  });

  test('that is no URL is wrong usage', async () => {
    const [server, home] = [await serve(), temporaryDirectory()];
    const result = await copy(home, server.url, [], { HTTP_PROXY: 'socks5://me:s3cr3t@host' });
    expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('HTTP_PROXY must have the form') });
  });
});

describeWith(['openssl'], 'a private authority', () => {
  async function secured(options: { readonly wantsClient?: boolean } = {}) {
    const home = temporaryDirectory();
    await makeAuthority(home, 'a company');
    await certify(home, 'server', home);
    const server = await serve();
    const pem = (name: string) => readFileSync(join(home, `${name}.pem`), 'utf8');
    const tls = { cert: pem('server-cert'), key: pem('server-key') };
    const client = options.wantsClient ? { requestCert: true, ca: pem('ca-cert') } : {};
    return { home, server, url: `${await startTls(server.origin, { ...tls, ...client })}/disk.img` };
  }

  test('is trusted with --cacert or SSL_CERT_FILE only', async () => {
    const { home, server, url } = await secured();
    expectRefused(home, await copy(home, url), /^copyondemand: COD_SOURCE_IO: .*TLS.*option: --cacert/);
    expect(server.asks).toEqual([]);
    expectCopied(home, await copy(home, url, ['--cacert', 'ca-cert.pem']));
    const other = temporaryDirectory();
    const SSL_CERT_FILE = join(home, 'ca-cert.pem');
    expectCopied(other, await copy(other, url, [], { SSL_CERT_FILE }));
  });

  test('is trusted through an authenticating proxy', async () => {
    const { home, url } = await secured();
    const proxy = await ProxyServer.start('me:s3cr3t');
    expectCopied(home, await copy(home, url, ['--cacert', 'ca-cert.pem'], { HTTPS_PROXY: proxy.url }));
    expect(new Set(proxy.asks)).toEqual(new Set([`CONNECT ${new URL(url).host}`]));
  });

  test('does not matter with --insecure, which warns', async () => {
    const { home, url } = await secured();
    const result = await copy(home, url, ['--insecure']);
    expect(result.stderr).toBe(`copyondemand: warning: ${url}: the certificate is not verified\n`);
    expect(eventsOf(result)).toContainEqual({ event: 'warning', message: `${url}: the certificate is not verified` });
    expectCopied(home, { ...result, stderr: '' });
  });

  test('is warned of with --insecure before the first request', async () => {
    const { home, server, url } = await secured();
    let warned: () => void = () => undefined;
    const warning = new Promise<void>((resolve) => (warned = resolve));
    server.behaviour = async (ask) => {
      await warning;
      ask.send({ status: 403, body: '' });
    };
    const running = startCommand(['copy', url, 'disk', '--insecure'], { cwd: home, env: { ...NONE, HOME: home } });
    running.child.stderr!.once('data', warned);
    const message = `copyondemand: warning: ${url}: the certificate is not verified\ncopyondemand: COD_SOURCE_IO`;
    expect(await running.result).toMatchObject({ exitCode: 1, stderr: expect.stringContaining(message) });
  });

  test('gets a client certificate, and another server does not', async () => {
    const { home, server, url } = await secured({ wantsClient: true });
    await certify(home, 'client', home);
    const trusted = ['--cacert', 'ca-cert.pem'];
    const own = [...trusted, '--cert', 'client-cert.pem', '--key', 'client-key.pem'];
    expectRefused(home, await copy(home, url, trusted), /^copyondemand: COD_SOURCE_IO: /);
    expect(server.asks).toEqual([]);
    const first = await serve((ask) => ask.send({ status: 302, headers: { location: url }, body: '' }));
    expectRefused(home, await copy(home, first.url, own), /^copyondemand: COD_SOURCE_IO: /);
    const object = ['--endpoint-url', first.origin, '--no-sign-request'];
    expectRefused(home, await copy(home, 's3://images/disk', [...own, ...object]), /^copyondemand: COD_SOURCE_IO: /);
    expect(server.asks).toEqual([]);
    expectCopied(home, await copy(home, url, own));
    const secure = ['--endpoint-url', new URL(url).origin, '--no-sign-request', '--sha256', SHA256];
    expect(await copy(home, 's3://images/disk', [...own, ...secure])).toMatchObject({ exitCode: 0, stderr: '' });
  });

  test.each([
    ['a file that is missing', ['--cacert', 'missing'], 1, /COD_NOT_FOUND: .*missing/],
    ['a file without a certificate', ['--cacert', 'server-key.ext'], 2, /no certificate/],
    ['a certificate without its key', ['--cert', 'server-cert.pem'], 2, /--cert and --key/],
    ['a key without its certificate', ['--key', 'server-key.pem'], 2, /--cert and --key/],
    ['a key of another certificate', ['--cert', 'server-cert.pem', '--key', 'ca-key.pem'], 2, /do not match/],
  ])('refuses %s', async (_, options, exitCode, says) => {
    const { home, server, url } = await secured();
    writeFileSync(join(home, 'server-key.ext'), 'text');
    expect(await copy(home, url, options)).toMatchObject({ exitCode, stderr: expect.stringMatching(says) });
    expect(server.asks).toEqual([]);
  });
});

describe('credentials in files', () => {
  /** Answers requests with this header only. */
  const wants =
    (value: string, name = 'authorization') =>
    (ask: Ask) =>
      ask.headers[name] === value ? ask.send() : ask.send({ status: 401, body: `not ${ask.headers[name]}` });
  const basic = (login: string) => `Basic ${Buffer.from(login).toString('base64')}`;

  test('of --user-file', async () => {
    const [server, home] = [await serve(wants(basic('me:s3cr3t:ü'))), temporaryDirectory()];
    writeFileSync(join(home, 'user'), 'me:s3cr3t:ü\n');
    expectCopied(home, await copy(home, server.url, ['--user-file', 'user']));
  });

  test('of --header @FILE, beside other headers', async () => {
    const [server, home] = [await serve(wants('Bearer s3cr3t')), temporaryDirectory()];
    writeFileSync(join(home, 'headers'), '\nAuthorization: Bearer s3cr3t\r\n\r\nX-One: 1\n');
    expectCopied(home, await copy(home, server.url, ['--header', 'X-Two: 2', '--header', '@headers']));
    expect(server.asks.at(-1)?.headers).toMatchObject({ 'x-one': '1', 'x-two': '2' });
  });

  test('are read again when they have expired', async () => {
    const home = temporaryDirectory();
    writeFileSync(join(home, 'token'), 'Authorization: Bearer s3cr3t-1\n');
    let token = 1;
    const server = await serve((ask) => {
      if (!ask.isOpening && token === 1)
        writeFileSync(join(home, 'token'), `Authorization: Bearer s3cr3t-${++token}\n`);
      return wants(`Bearer s3cr3t-${token}`)(ask);
    });
    expectCopied(home, await copy(home, server.url, ['--header', '@token']));
    expect(token).toBe(2);
  });

  test.each([
    [
      'a machine',
      'machine other login a password b\nmachine 127.0.0.1\n  login me\n  password s3cr3t\nmachine x login y',
    ],
    ['the default', '# machine 127.0.0.1 login x\ndefault login me password "s3cr3t"'],
    ['a machine after a macro', 'macdef init\nmachine 127.0.0.1 login x\n\nmachine 127.0.0.1 login me password s3cr3t'],
  ])('of --netrc: %s', async (_, text) => {
    const [server, home] = [await serve(wants(basic('me:s3cr3t'))), temporaryDirectory()];
    writeFileSync(join(home, '.netrc'), text);
    expectCopied(home, await copy(home, server.url, ['--netrc']));
  });

  test('of --netrc are for their machine, and --user counts more', async () => {
    const [server, home] = [await serve(wants(basic('you:too'))), temporaryDirectory()];
    writeFileSync(join(home, 'other'), 'machine localhost login me password s3cr3t');
    const NETRC = join(home, 'other');
    expectRefused(home, await copy(home, server.url, ['--netrc'], { NETRC }), /\b401\b.*option: --user/);
    expect(server.asks.at(-1)?.headers['authorization']).toBeUndefined();
    writeFileSync(NETRC, 'machine 127.0.0.1 login me password s3cr3t');
    expectRefused(home, await copy(home, server.url, ['--netrc'], { NETRC }), /not …/);
    expectCopied(home, await copy(home, server.url, ['--netrc', '--user', 'you:too'], { NETRC }));
  });

  test.each([
    ['--user-file', 'user', 2, /--user-file needs the form name:password/],
    ['--header', '@user', 2, /--header needs the form/],
    ['--user-file', 'missing', 1, /COD_NOT_FOUND: .*missing/],
    ['--header', '@missing', 1, /COD_NOT_FOUND: .*missing/],
  ])('%s %s is refused', async (option, value, exitCode, says) => {
    const [server, home] = [await serve(), temporaryDirectory()];
    writeFileSync(join(home, 'user'), 's3cr3t');
    expect(await copy(home, server.url, [option, value])).toMatchObject({
      exitCode,
      stderr: expect.stringMatching(says),
    });
    expect(server.asks).toEqual([]);
  });
});
