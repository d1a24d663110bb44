/** Published files of digests: the line of an image is found in each of their formats. */

import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { findDigest } from '../../src/cli/checksums.ts';

const hashed = (algorithm: string, text: string): string => createHash(algorithm).update(text).digest('hex');
const A = hashed('sha256', 'a');
const B = hashed('sha256', 'b');
const LONG = hashed('sha512', 'a');

const GNU = `${B}  other.raw\n${A}  disk.raw\n`;
const CLEARSIGNED = `-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# disk.raw: 1048576 bytes
SHA256 (other.raw) = ${B}
SHA256 (disk.raw) = ${A}
-----BEGIN PGP SIGNATURE-----

${B}
${B}  disk.raw
-----END PGP SIGNATURE-----
`;

test.each([
  { name: 'GNU', text: GNU },
  { name: 'GNU, binary mode', text: GNU.replaceAll('  ', ' *') },
  { name: 'GNU, with paths', text: `${B}  ./sub/other.raw\n${A}  ./sub/disk.raw\n` },
  { name: 'GNU, upper case, CRLF', text: GNU.toUpperCase().replace('DISK.RAW', 'disk.raw').replaceAll('\n', '\r\n') },
  { name: 'GNU, last line without its end', text: GNU.trimEnd() },
  { name: 'BSD', text: `SHA256 (other.raw) = ${B}\nSHA256 (disk.raw) = ${A}\n` },
  { name: 'both digests equal, twice', text: GNU + GNU },
  {
    name: 'comments and other algorithms',
    text: `# ${B}  disk.raw\n;${B}  disk.raw\n\n${'ab'.repeat(16)}  disk.raw\n${GNU}`,
  },
  {
    name: 'BSD, other algorithms',
    text: `MD5 (disk.raw) = ${'ab'.repeat(16)}\nSHA1 (disk.raw) = ${'ab'.repeat(20)}\n${GNU}`,
  },
  { name: 'a digest alone', text: `${A}\n` },
  { name: 'clearsigned', text: CLEARSIGNED, isSigned: true },
  {
    name: 'clearsigned, with lines that begin with a dash',
    text: CLEARSIGNED.replace(`SHA256 (disk`, '- SHA256 (disk'),
    isSigned: true,
  },
])('$name', ({ text, isSigned = false }) => {
  expect(findDigest(text, 'disk.raw')).toEqual({ digest: { algorithm: 'sha256', hex: A }, isSigned });
});

test('the longer digest counts', () => {
  for (const text of [`${GNU}${LONG}  disk.raw\n`, `SHA512 (disk.raw) = ${LONG}\n${GNU}`])
    expect(findDigest(text, 'disk.raw').digest).toEqual({ algorithm: 'sha512', hex: LONG });
});

test('a name with a backslash or the end of a line is written with escapes', () => {
  expect(findDigest(`\\${A}  a\\\\b\\nc\n`, 'a\\b\nc').digest).toEqual({ algorithm: 'sha256', hex: A });
  expect(findDigest(`${A}  a\\\\b\n`, 'a\\b').digest).toBeUndefined();
});

test.each([
  { name: 'another name', text: GNU.replaceAll('disk.raw', 'disk.raw.gz') },
  { name: 'a name that ends like it', text: GNU.replaceAll('disk.raw', 'mydisk.raw') },
  { name: 'nothing', text: '' },
  { name: 'two digests alone', text: `${A}\n${B}\n` },
  { name: 'a digest alone beside that of another file', text: `${A}\n${B}  other.raw\n` },
  { name: 'only in the signature', text: `-----BEGIN PGP SIGNATURE-----\n${A}  disk.raw\n` },
  { name: 'a web page', text: '<html><body>404 disk.raw</body></html>' },
])('no digest: $name', ({ text }) => {
  expect(findDigest(text, 'disk.raw').digest).toBeUndefined();
});

test('two digests of one name are a problem', () => {
  expect(findDigest(`${A}  a/disk.raw\n${B}  b/disk.raw\n`, 'disk.raw')).toMatchObject({
    digest: undefined,
    problem: 'has several digests',
  });
});
