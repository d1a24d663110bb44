import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/cli/failure.ts';
import { checkSourceFlags, type HttpFlags, httpOptions } from '../../src/cli/http-options.ts';
import { parseSourceUri, showSourceUri } from '../../src/cli/source-uri.ts';
import { parseNbdUri } from '../../src/nbd/uri.ts';
import { temporaryDirectory } from './temporary.ts';

describe('SOURCE', () => {
  test.each(['disk.raw', './a b', '/dev/sda', 'C:\\disk.raw', 'http:disk.raw', '-', '://x'])('%s is a path', (text) => {
    expect(parseSourceUri(text)).toEqual({ kind: 'file', path: text });
  });

  test.each(['http://h/d', 'https://h:8443/d?x=1', 'HTTP://h/d'])('%s is a URL over HTTP', (text) => {
    expect(parseSourceUri(text)).toEqual({ kind: 'http', url: new URL(text) });
  });

  test.each([
    'nbd:///x',
    'nbd+unix:///x',
    'nbd+vsock://1/',
    's3://bucket',
    's3:///key',
    's3://bucket/',
    'ftp://h/d',
    'file:///d',
    'javascript://x',
    '',
    'http://',
    'http://h:99999/',
  ])('refuses %j', (text) => {
    expect(() => parseSourceUri(text)).toThrow(UsageError);
  });

  test.each(['nbd://h/x', 'nbds://[::1]:99/x', 'nbd+unix:///x?socket=/s'])('%s is an NBD export', (text) => {
    expect(parseSourceUri(text)).toEqual({ kind: 'nbd', location: parseNbdUri(text) });
    expect(showSourceUri(parseSourceUri(text))).toBe(text);
  });

  test.each([
    ['s3://bucket/key', { bucket: 'bucket', key: 'key' }],
    ['S3://b.c/a b//ü%20?x#y', { bucket: 'b.c', key: 'a b//ü%20?x#y' }],
    ['s3://b/k?versionId=v.1_-', { bucket: 'b', key: 'k', versionId: 'v.1_-' }],
    ['s3://b/k?a=1?versionId=v', { bucket: 'b', key: 'k?a=1', versionId: 'v' }],
  ])('%s is an object in S3', (text, object) => {
    expect(parseSourceUri(text)).toEqual({ kind: 's3', ...object });
    expect(showSourceUri(parseSourceUri(text))).toBe(text.replace('S3:', 's3:'));
  });

  test('refuses an unsupported scheme, and lists the supported ones', () => {
    expect(() => parseSourceUri('ftp://h/d')).toThrow(/ftp:\/\/.*a path.*http:\/\/.*https:\/\/.*s3:\/\//);
  });

  test('shows neither credentials nor the query', () => {
    expect(showSourceUri(parseSourceUri('https://name:secret@h/d?x=1#y'))).toBe('https://h/d?…');
    expect(showSourceUri(parseSourceUri('https://h:8443/d'))).toBe('https://h:8443/d');
    expect(showSourceUri(parseSourceUri('/a/b'))).toBe('/a/b');
  });
});

describe('options over HTTP', () => {
  test('are passed to the source', () => {
    expect(
      httpOptions({
        header: ['X-One: 1', 'X-Two:a:b'],
        user: 'name:pass:word',
        streamWhole: true,
        retries: 0,
        timeout: 3,
      }),
    ).toEqual({
      headers: { 'X-One': '1', 'X-Two': 'a:b' },
      username: 'name',
      password: 'pass:word',
      allowWholeBody: true,
      retry: { attempts: 1 },
      stallTimeoutMs: 3000,
    });
    expect(httpOptions({})).toEqual({});
  });

  test('read files with secrets whenever the source asks', () => {
    const file = join(temporaryDirectory(), 'secret');
    const { headers } = httpOptions({ header: ['X-One: 1', `@${file}`], userFile: file });
    if (typeof headers !== 'function') throw new Error('no function');
    for (const token of ['one', 'two']) {
      writeFileSync(file, `Name:${token}\n`);
      const authorization = `Basic ${btoa(`Name:${token}`)}`;
      expect(headers()).toEqual({ 'X-One': '1', Name: token, authorization });
    }
  });

  test.each([{ header: ['nonsense'] }, { header: [': x'] }, { user: 'name' }])('refuses %j', (flags) => {
    expect(() => httpOptions(flags)).toThrow(UsageError);
  });

  test.each<[string, HttpFlags]>([
    ['disk.raw', { user: 'a:b' }],
    ['disk.raw', { header: ['a: b'] }],
    ['disk.raw', { streamWhole: true }],
    ['disk.raw', { timeout: 1 }],
    ['s3://b/k', { user: 'a:b' }],
    ['s3://b/k', { streamWhole: true }],
    ['http://h/d', { endpointUrl: 'http://h' }],
    ['http://h/d', { signRequest: false }],
  ])('are refused with %s: %o', (source, flags) => {
    expect(() => checkSourceFlags(parseSourceUri(source), flags)).toThrow(UsageError);
  });

  test('are allowed with S3 as far as they make sense', () => {
    const flags = { header: ['a: b'], timeout: 1, retries: 1, endpointUrl: 'http://h', signRequest: false };
    checkSourceFlags(parseSourceUri('s3://b/k'), flags);
  });

  test('of retries are allowed with a path: they say when `copy` gives up', () => {
    checkSourceFlags(parseSourceUri('disk.raw'), { retries: 1 });
  });

  test('are refused with NBD if NBD has no equivalent', () => {
    const uri = parseSourceUri('nbd://127.0.0.1:9/');
    expect(() => checkSourceFlags(uri, { user: 'a:b' })).toThrow(UsageError);
    checkSourceFlags(uri, { retries: 1, timeout: 1 });
  });
});
