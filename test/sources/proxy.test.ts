import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type HttpTransportOptions, httpTransport } from '../../src/sources/http/node-http-transport.ts';
import { proxiesOf } from '../../src/sources/http/node-proxy.ts';
import { type HttpSourceOptions, httpSource } from '../../src/sources/http/source.ts';
import type { Source } from '../../src/sources/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { certify, makeAuthority, startTls } from '../support/certificates.ts';
import { HostileServer } from '../support/http-server.ts';
import { ProxyServer } from '../support/proxy-server.ts';
import { describeWith } from '../support/tools.ts';
import { TestClock } from './test-clock.ts';

const CONTENT = seededRandom(8).fill(new Uint8Array(200_001));

async function serve(): Promise<HostileServer> {
  const server = await HostileServer.start(CONTENT);
  onTestFinished(() => server.stop());
  return server;
}

interface Ways {
  readonly proxy: string;
  readonly ca?: string;
}

async function open(url: string, { proxy, ca }: Ways, options: HttpSourceOptions = {}): Promise<Source> {
  const proxies = { HTTP_PROXY: proxy, HTTPS_PROXY: proxy };
  const transport = httpTransport({ proxies, ...(ca === undefined ? {} : { tls: { ca } }) });
  const clock = new TestClock();
  const source = await httpSource(url, { transport, clock, random: () => 0, retry: { attempts: 3 }, ...options });
  onTestFinished(() => source.close());
  return source;
}

async function expectRead(source: Source, offset = 12_345, length = 100_003): Promise<void> {
  const into = new Uint8Array(length);
  await source.read(into, offset);
  expectBytes(into, CONTENT.subarray(offset, offset + length));
}

describe('a URL over http', () => {
  it('is requested from the proxy, over kept connections', async () => {
    const server = await serve();
    const proxy = await ProxyServer.start();
    const source = await open(`${server.url}?x=1`, { proxy: proxy.url }, { username: 'me', password: 'mine' });
    await expectRead(source);
    await expectRead(source, 0, 5);
    expect(proxy.asks).toEqual(Array(3).fill(`${server.url}?x=1`));
    expect(server.asks.map(({ headers }) => headers['host'])).toEqual(Array(3).fill(new URL(server.origin).host));
    expect(server.asks.every(({ headers }) => headers['authorization']?.startsWith('Basic '))).toBe(true);
    expect(server.asks.some(({ headers }) => headers['proxy-authorization'] !== undefined)).toBe(false);
  });

  it('follows redirects through the proxy', async () => {
    const server = await serve();
    const first = await HostileServer.start(CONTENT, (ask) =>
      ask.send({ status: 302, headers: { location: server.url }, body: '' }),
    );
    onTestFinished(() => first.stop());
    const proxy = await ProxyServer.start();
    await expectRead(await open(first.url, { proxy: proxy.url }));
    expect(proxy.asks).toEqual([first.url, server.url, server.url]);
  });

  it('is not requested without a proxy that is away', async () => {
    const server = await serve();
    await expect(open(server.url, { proxy: 'http://127.0.0.1:1' })).rejects.toThrow(/ECONNREFUSED.*3 attempts/);
    expect(server.asks).toEqual([]);
  });
});

describeWith(['openssl'], 'a URL over https', () => {
  async function secured() {
    const folder = temporaryDirectory();
    await makeAuthority(folder, 'a company');
    await certify(folder, 'server', folder);
    const [ca, cert, key] = ['ca-cert', 'server-cert', 'server-key'].map((n) =>
      readFileSync(join(folder, `${n}.pem`), 'utf8'),
    );
    const server = await serve();
    return {
      server,
      url: `${await startTls(server.origin, { cert: cert!, key: key! })}/disk.img`,
      ca: ca!,
      cert: cert!,
      key: key!,
    };
  }

  it('is requested through a tunnel, over kept connections', async () => {
    const { server, url, ca } = await secured();
    const proxy = await ProxyServer.start('me:right');
    const source = await open(url, { proxy: proxy.url, ca });
    await expectRead(source);
    await expectRead(source, 0, 5);
    expect(proxy.asks).toEqual([`CONNECT ${new URL(url).host}`]);
    expect(server.asks.length).toBe(3);
    expect(server.asks.some(({ headers }) => headers['proxy-authorization'] !== undefined)).toBe(false);
  });

  it('is requested through a tunnel of a proxy that itself has TLS', async () => {
    const { url, ca, cert, key } = await secured();
    const proxy = await ProxyServer.start();
    const front = await startTls(proxy.url, { cert, key });
    await expectRead(await open(url, { proxy: front, ca }));
    expect(proxy.asks).toEqual([`CONNECT ${new URL(url).host}`]);
  });

  it('verifies the certificate of the server behind the tunnel', async () => {
    const { server, url } = await secured();
    const proxy = await ProxyServer.start();
    await expect(open(url, { proxy: proxy.url })).rejects.toThrow(/the TLS connection failed/);
    expect(server.asks).toEqual([]);
  });

  it.each([502, 503, 504])('is requested again after %i', async (status) => {
    const { url, ca } = await secured();
    const proxy = await ProxyServer.start();
    proxy.refusal = status;
    await expectRead(await open(url, { proxy: proxy.url, ca }));
    expect(proxy.asks.length).toBe(2);
  });

  it('is refused after 403 of the proxy', async () => {
    const { url, ca } = await secured();
    const proxy = await ProxyServer.start();
    proxy.refusal = 403;
    await expect(open(url, { proxy: proxy.url, ca })).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: `the proxy ${proxy.url} does not connect to ${new URL(url).host} (403)`,
      details: { status: 403 },
    });
    expect(proxy.asks.length).toBe(1);
  });

  it('gives up a tunnel that does not open', async () => {
    const { url, ca } = await secured();
    const silent = await HostileServer.start(CONTENT, () => {});
    onTestFinished(() => silent.stop());
    const clock = new TestClock();
    silent.behaviour = () => clock.stall();
    await expect(open(url, { proxy: silent.origin, ca }, { clock })).rejects.toThrow(/sent nothing/);
    await silent.allClosed();
  });
});

describeWith(['openssl'], 'httpTransport', () => {
  /** A server that wants a certificate of the authority, and has one. */
  async function secured() {
    const folder = temporaryDirectory();
    await makeAuthority(folder, 'a company');
    for (const role of ['server', 'client'] as const) await certify(folder, role, folder);
    const pem = (name: string): string => readFileSync(join(folder, `${name}.pem`), 'utf8');
    const ca = pem('ca-cert');
    const server = await serve();
    const own = { cert: pem('server-cert'), key: pem('server-key') };
    const url = `${await startTls(server.origin, { ...own, requestCert: true, ca })}/disk.img`;
    return { server, url, ca, client: { cert: pem('client-cert'), key: pem('client-key') } };
  }

  async function read(url: string, tls: HttpTransportOptions['tls']): Promise<void> {
    const transport = httpTransport(tls === undefined ? {} : { tls });
    const source = await httpSource(url, { transport, retry: { attempts: 1 } });
    onTestFinished(() => source.close());
    await expectRead(source);
  }

  it('presents a client certificate', async () => {
    const { url, ca, client } = await secured();
    await read(url, { ca, ...client });
    await expect(read(url, { ca })).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  });

  it('does not present it to the server that a redirect leads to, with a function', async () => {
    const { server, url, ca, client } = await secured();
    const first = await HostileServer.start(CONTENT, (ask) =>
      ask.send({ status: 302, headers: { location: url }, body: '' }),
    );
    onTestFinished(() => first.stop());
    const asked: string[] = [];
    const tls = (origin: string) => {
      asked.push(origin);
      return origin === first.origin ? { ca, ...client } : { ca };
    };
    await expect(read(first.url, tls)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    expect(asked).toEqual([first.origin, new URL(url).origin]);
    expect(server.asks).toEqual([]);
    await read(url, (origin) => (origin === new URL(url).origin ? { ca, ...client } : {}));
  });

  it('trusts any server on request only', async () => {
    const { url, client } = await secured();
    await expect(read(url, client)).rejects.toThrow(/the TLS connection failed/);
    await read(url, { ...client, rejectUnauthorized: false });
  });

  it.each([
    ['a key of another certificate', { key: undefined }],
    ['what is no PEM', { cert: 'text' }],
  ])('refuses %s', async (_, wrong) => {
    const { url, ca, client } = await secured();
    const other = temporaryDirectory();
    await makeAuthority(other, 'another');
    const key = readFileSync(join(other, 'ca-key.pem'), 'utf8');
    const tls = { ca, ...client, ...wrong };
    // Final: no attempts are counted.
    const error = { code: 'COD_SOURCE_IO', message: expect.stringMatching(/the TLS connection failed.*\(ERR_OSSL_/) };
    await expect(read(url, { ...tls, key: tls.key ?? key })).rejects.toMatchObject(error);
  });

  it('refuses a proxy that is no URL before it sends anything', () => {
    expect(() => httpTransport({ proxies: { https_proxy: 'socks5://host' } })).toThrow(TypeError);
  });
});

describe.each(['http', 'https'])('a proxy that wants a password, for %s', (protocol) => {
  const target = (server: HostileServer) => server.url.replace('http', protocol);

  it('refuses, and no message has the password', async () => {
    const server = await serve();
    const proxy = await ProxyServer.start('me:right');
    const wrong = `http://me:s3cr3t@127.0.0.1:${proxy.port}`;
    for (const url of [wrong, `http://127.0.0.1:${proxy.port}`]) {
      const error: Error = await open(target(server), { proxy: url }).then(
        () => expect.unreachable(),
        (caught) => caught,
      );
      expect(error).toMatchObject({ code: 'COD_SOURCE_IO', details: { status: 407 } });
      expect(error.message).toContain(`the proxy http://127.0.0.1:${proxy.port} denies access (407)`);
      expect(JSON.stringify(error)).not.toContain('s3cr3t');
    }
    // 407 is final.
    expect(proxy.asks.length).toBe(2);
    expect(server.asks).toEqual([]);
  });
});

it('a proxy gets the password that it wants', async () => {
  const server = await serve();
  const proxy = await ProxyServer.start('me:p ss/:@');
  await expectRead(await open(server.url, { proxy: `http://me:p%20ss%2F%3A%40@127.0.0.1:${proxy.port}` }));
  expect(proxy.asks.length).toBe(2);
});

describe('proxiesOf', () => {
  const proxy = 'http://proxy:3128/';
  it.each([
    ['http://a/', { HTTP_PROXY: proxy }, true],
    ['https://a/', { HTTP_PROXY: proxy }, false],
    ['https://a/', { HTTPS_PROXY: proxy }, true],
    ['http://a/', { http_proxy: proxy, HTTP_PROXY: 'http://other' }, true],
    ['http://a/', { http_proxy: '', HTTP_PROXY: proxy }, true],
    ['http://a/', { HTTP_PROXY: 'proxy:3128' }, true],
    ['http://a/', { HTTP_PROXY: '' }, false],
    ['http://a/', {}, false],
  ])('of %s with %o: %o', (url, env, isProxied) => {
    expect(proxiesOf(env)(new URL(url))?.href).toBe(isProxied ? proxy : undefined);
  });

  it.each([
    ['*', 'http://anything/'],
    ['example.com', 'http://example.com/'],
    ['example.com', 'http://sub.example.com/'],
    ['.example.com', 'http://sub.example.com/'],
    ['*.example.com', 'http://sub.example.com/'],
    ['other, Example.COM.,', 'http://EXAMPLE.com./'],
    ['a b', 'http://b/'],
    ['example.com:8080', 'http://example.com:8080/'],
    ['example.com:80', 'http://example.com/'],
    ['127.0.0.1', 'http://127.0.0.1:9/'],
    ['127.0.0.1:9', 'http://127.0.0.1:9/'],
    ['10.0.0.0/8', 'http://10.9.8.7/'],
    ['::1', 'http://[::1]/'],
    ['[::1]', 'http://[::1]/'],
    ['[::1]:9', 'http://[::1]:9/'],
    ['fd00::/8', 'http://[fd12::1]/'],
  ])('NO_PROXY=%s covers %s', (entry, url) => {
    expect(proxiesOf({ HTTP_PROXY: proxy, NO_PROXY: entry })(new URL(url))).toBeUndefined();
  });

  it.each([
    ['example.com', 'http://notexample.com/'],
    ['example.com', 'http://example.com.evil/'],
    ['sub.example.com', 'http://example.com/'],
    ['example.com:8080', 'http://example.com/'],
    ['127.0.0.1', 'http://27.0.0.1/'],
    ['0.0.1', 'http://127.0.0.1/'],
    ['10.0.0.0/8', 'http://11.9.8.7/'],
    ['10.0.0.0/33', 'http://10.0.0.0/'],
    ['10.0.0.0/x', 'http://10.0.0.0/'],
    ['fd00::/8', 'http://10.0.0.0/'],
    ['', 'http://a/'],
    [',', 'http://a/'],
  ])('NO_PROXY=%s does not cover %s', (entry, url) => {
    expect(proxiesOf({ HTTP_PROXY: proxy, no_proxy: entry })(new URL(url))?.href).toBe(proxy);
  });

  it.each(['socks5://me:s3cr3t@proxy', 'http://me:s3cr3t@:x', 'http://me:s3cr3t%zz@proxy'])('refuses %s', (text) => {
    expect(() => proxiesOf({ HTTP_PROXY: text })).toThrow(/^HTTP_PROXY must have the form/);
    expect(() => proxiesOf({ HTTP_PROXY: text })).toThrow(TypeError);
    expect(() => proxiesOf({ HTTP_PROXY: text })).not.toThrow(/s3cr3t/);
  });
});
