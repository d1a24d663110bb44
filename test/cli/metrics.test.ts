/** The metrics of `serve`: their text, and the server that has to stand any client. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, expect, onTestFinished, test } from 'vitest';
import { parseMetricsAddress } from '../../src/cli/metrics/address.ts';
import { Collector } from '../../src/cli/metrics/collector.ts';
import { Exposition, Histogram } from '../../src/cli/metrics/exposition.ts';
import { MetricsServer } from '../../src/cli/metrics/server.ts';
import { bytesSource, openDevice } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';

const PLACES = 16;

test.each([
  ['9464', { host: '127.0.0.1', port: 9464 }],
  ['0', { host: '127.0.0.1', port: 0 }],
  ['0.0.0.0:9464', { host: '0.0.0.0', port: 9464 }],
  ['localhost:65535', { host: 'localhost', port: 65_535 }],
  ['[::1]:80', { host: '::1', port: 80 }],
  ['[fe80::1%eth0]:80', { host: 'fe80::1%eth0', port: 80 }],
])('the address %s', (given, expected) => {
  expect(parseMetricsAddress(given)).toEqual(expected);
});

test.each(['', ':9464', 'localhost', 'localhost:', '65536', '::1:80', 'http://localhost:80', 'a b:80', '-1', '80 '])(
  'no address: %j',
  (given) => {
    expect(() => parseMetricsAddress(given)).toThrow('Use HOST:PORT or PORT');
  },
);

describe('the text', () => {
  test('escapes what labels and help may hold', () => {
    const exposition = new Exposition();
    exposition.add('a', 'gauge', 'One \\ two\nthree "four"', [[{ path: 'C:\\a "b"\nc' }, 1]]);
    expect(exposition.toString()).toBe(
      '# HELP a One \\\\ two\\nthree "four"\n# TYPE a gauge\na{path="C:\\\\a \\"b\\"\\nc"} 1\n',
    );
  });

  test('leaves out a family without samples, and writes numbers of any kind', () => {
    const exposition = new Exposition();
    exposition.add('none', 'gauge', 'None.', []);
    exposition.add('b', 'gauge', 'Numbers.', [
      [{}, Number.NaN],
      [{}, Number.POSITIVE_INFINITY],
      [{}, 2 ** 60],
      [{}, 1e-7],
    ]);
    expect(exposition.toString().split('\n').slice(2)).toEqual([
      'b NaN',
      'b +Inf',
      'b 1152921504606847000',
      'b 1e-7',
      '',
    ]);
  });

  test('counts a duration in its bucket and in all above it', () => {
    const histogram = new Histogram();
    for (const milliseconds of [0, 0.01, 0.011, 1, 2.5, 50_000, 50_001, 1e9]) histogram.observe(milliseconds);
    const buckets = new Map(histogram.buckets());
    expect(buckets.get('0.00001')).toBe(2);
    expect(buckets.get('0.000025')).toBe(3);
    expect(buckets.get('0.0005')).toBe(3);
    expect(buckets.get('0.001')).toBe(4);
    expect(buckets.get('0.0025')).toBe(5);
    expect(buckets.get('50')).toBe(6);
    expect(buckets.get('+Inf')).toBe(8);
    expect(histogram.sum).toBeCloseTo(1_000_100.004_521, 6);
  });
});

test('series of a device begin when it is opened and end when it is closed', async () => {
  const collector = new Collector('1.2.3');
  onTestFinished(() => collector.stop());
  const target = 'metrics "of" a device';
  const source = bytesSource(new Uint8Array(2 ** 20));
  expect(collector.text()).not.toContain('target=');
  const device = await openDevice({ source, fileSystem: memfsFileSystem(), target, hydrate: false });
  await device.read(new Uint8Array(4096), 0);
  await device.write(new Uint8Array(4096), 8192);
  await device.flush();
  const found = collector.text();
  const series = `target="metrics \\"of\\" a device"`;
  expect(found).toContain(`copyondemand_state{${series},state="idle"} 1\n`);
  expect(found).toContain(`copyondemand_size_bytes{${series}} 1048576\n`);
  expect(found).toContain(`copyondemand_source_bytes_total{${series},kind="demand"} 4096\n`);
  expect(found).toContain(`copyondemand_source_bytes_total{${series},kind="background"} 0\n`);
  expect(found).toContain(`copyondemand_source_request_duration_seconds_count{${series},kind="demand"} 1\n`);
  expect(found).toContain(`copyondemand_device_calls_total{${series},call="write"} 1\n`);
  expect(found).toMatch(/copyondemand_flush_duration_seconds_count\{.*\} [1-9]/);
  expect(found).toContain('copyondemand_build_info{version="1.2.3",');
  await device.close();
  expect(collector.text()).not.toContain('target=');
});

describe('the server', () => {
  async function serve(body = 'metric 1\n', requestMs?: number): Promise<MetricsServer> {
    const server = await MetricsServer.open(
      { host: '127.0.0.1', port: 0 },
      () => body,
      requestMs === undefined ? {} : { requestMs },
    );
    onTestFinished(() => server.close());
    return server;
  }

  function client({ url }: MetricsServer, sends = ''): Socket {
    const { hostname: host, port } = new URL(url);
    const socket = connect({ host, port: Number(port) });
    // The server may reset the connection while something is sent.
    socket.on('error', () => undefined);
    onTestFinished(() => void socket.destroy());
    socket.write(sends);
    return socket;
  }

  test.each([
    ['GET', '/metrics', 200, 'metric 1\n'],
    ['GET', '/metrics?name=a', 200, 'metric 1\n'],
    ['GET', '/healthz', 200, 'ok\n'],
    ['HEAD', '/metrics', 200, ''],
    ['GET', '/', 404, /metrics/],
    ['GET', '/metrics/', 404, /metrics/],
    ['GET', '/metrics%00', 404, /metrics/],
    ['POST', '/metrics', 405, 'use GET\n'],
    ['DELETE', '/healthz', 405, 'use GET\n'],
  ])('%s %s: %i', async (method, path, status, body) => {
    const { url } = await serve();
    const response = await fetch(new URL(path, url), { method });
    expect(response.status).toBe(status);
    const found = await response.text();
    if (typeof body === 'string') expect(found).toBe(body);
    else expect(found).toMatch(body);
    if (path.startsWith('/metrics') && status === 200)
      expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  });

  test.each([
    ['says nothing', ''],
    ['sends a part of its head', 'GET /metrics HTTP/1.1\r\nhost: a\r\n'],
    ['does not send the body that it announces', 'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n'],
    ['keeps its connection open', 'GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n'],
  ])('disconnects a client that %s', async (_, sends) => {
    const server = await serve('metric 1\n', 50);
    await once(client(server, sends).resume(), 'close');
  });

  test.each([
    ['a head of more than 4 KiB', `GET /metrics HTTP/1.1\r\nhost: a\r\na: ${'a'.repeat(5000)}\r\n\r\n`],
    ['what is no HTTP', 'NBDMAGIC\0\0\0\r\n\r\n'],
  ])('answers nothing to %s', async (_, sends) => {
    const socket = client(await serve(), sends);
    expect(await text(socket)).toBe('');
  });

  test('silent clients give their places to new ones, the oldest first', async () => {
    const server = await serve();
    const silent: Socket[] = [];
    for (let index = 0; index < PLACES; index++) {
      const socket = client(server);
      await once(socket, 'connect');
      silent.push(socket);
    }
    const closed = Promise.all(silent.slice(0, 3).map((socket) => once(socket, 'close')));
    for (let index = 0; index < 3; index++) {
      const answer = await text(client(server, 'GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'));
      expect(answer).toContain('\r\n\r\nok\n');
    }
    await closed;
  });

  test('an address in use is an error', async () => {
    const { url } = await serve();
    const { port } = new URL(url);
    await expect(MetricsServer.open({ host: '127.0.0.1', port: Number(port) }, () => '')).rejects.toMatchObject({
      code: 'COD_LOCKED',
    });
  });
});
