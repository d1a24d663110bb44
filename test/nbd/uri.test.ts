import { describe, expect, test } from 'vitest';
import { parseNbdUri, showNbdLocation } from '../../src/nbd/uri.ts';

describe('the URI of an NBD export', () => {
  test.each([
    ['nbd://host', { at: { host: 'host', port: 10_809 }, exportName: '', tls: false }],
    ['nbd://host/', { at: { host: 'host', port: 10_809 }, exportName: '', tls: false }],
    ['NBD://host:10810/disk', { at: { host: 'host', port: 10_810 }, exportName: 'disk', tls: false }],
    ['nbd://[::1]:99/a/b%20c%3F', { at: { host: '::1', port: 99 }, exportName: 'a/b c?', tls: false }],
    ['nbds://host/x', { at: { host: 'host', port: 10_809 }, exportName: 'x', tls: true }],
    [
      'nbds://host/x?tls-certificates=/etc/pki',
      { at: { host: 'host', port: 10_809 }, exportName: 'x', tls: true, tlsCertificates: '/etc/pki' },
    ],
    ['nbd+unix:///disk?socket=/run/s', { at: { socket: '/run/s' }, exportName: 'disk', tls: false }],
    ['nbd+unix://?socket=a%20b', { at: { socket: 'a b' }, exportName: '', tls: false }],
    ['nbds+unix:////x?socket=s', { at: { socket: 's' }, exportName: '/x', tls: true }],
  ])('%s', (uri, location) => {
    expect(parseNbdUri(uri)).toEqual(location);
    expect(parseNbdUri(showNbdLocation(parseNbdUri(uri)))).toMatchObject({
      at: location.at,
      exportName: location.exportName,
      tls: location.tls,
    });
  });

  test.each([
    'nbd:x',
    'nbd:///x',
    'nbd://h:0/',
    'nbd://h:99999/',
    'nbd://user@h/',
    'nbd://h/#x',
    'nbd://h/%ff',
    'nbd://h/?socket=s',
    'nbd://h/?tls-certificates=d',
    'nbds://h/?tls-certificates=',
    'nbds://h/?tls-verify-peer=false',
    'nbd+unix:///x',
    'nbd+unix:///x?socket=',
    'nbd+unix:///x?socket=a%00b',
    'nbd+unix://h/x?socket=s',
    'nbd+vsock://1/',
    'http://h/',
    '',
    `nbd://h/${'x'.repeat(4097)}`,
  ])('refuses %s', (uri) => {
    expect(() => parseNbdUri(uri)).toThrow(TypeError);
  });
});
