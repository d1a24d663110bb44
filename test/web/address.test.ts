/** What the page takes as the address of an image. */

import { expect, test } from 'vitest';
import { addressOf } from '../../src/web/address.ts';

test.each([
  ['https://example.org/disk.img', 'https://example.org/disk.img'],
  [' HTTP://example.org/a b.img\n', 'http://example.org/a%20b.img'],
  ['example.org/disk.img', 'https://example.org/disk.img'],
  ['example.org:8443/disk.img?x=1', 'https://example.org:8443/disk.img?x=1'],
  ['localhost:8080/disk.img', 'http://localhost:8080/disk.img'],
  ['127.0.0.1/disk.img', 'http://127.0.0.1/disk.img'],
  ['[::1]:80/disk.img', 'http://[::1]/disk.img'],
  ['//example.org/disk.img', 'https://example.org/disk.img'],
  ['images/disk.img', 'https://page.test/demo/images/disk.img'],
  ['disk.img', 'https://page.test/demo/disk.img'],
  ['https://example.org/first.img\nhttps://example.org/second.img', 'https://example.org/first.img'],
])('takes %j as %s', (text, url) => {
  expect(addressOf(text, 'https://page.test/demo/?image=x')).toBe(url);
});

test.each(['', ' \n', 'ftp://example.org/disk.img', 'javascript:alert(1)', 'file:///etc/passwd', 'https://'])(
  'refuses %j',
  (text) => {
    expect(addressOf(text, 'https://page.test/demo/')).toBeUndefined();
  },
);
