/** `scripts/pack-readme.mjs`: the README of the tarball has absolute links, and the tree keeps its own. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/pack-readme.mjs', import.meta.url));
const README = [
  '![A picture](docs/demo.svg)',
  '[design](docs/DESIGN.md#rules), [site](https://example.com/a), [below](#below), [mail](mailto:a@example.com)',
  '',
].join('\n');

function treeWith(manifest: object): { pack(...args: string[]): string; folder: string } {
  const folder = mkdtempSync(join(tmpdir(), 'cod-readme-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'README.md'), README);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ version: '1.2.3', ...manifest }));
  const pack = (...args: string[]): string => {
    execFileSync(process.execPath, [script, ...args, folder]);
    return readFileSync(join(folder, 'README.md'), 'utf8');
  };
  return { pack, folder };
}

test.each([{ url: 'git+https://github.com/owner/name.git' }, 'github:owner/name', 'https://github.com/owner/name'])(
  'links lead to the version in the repository %j',
  (repository) => {
    const { pack, folder } = treeWith({ repository });
    const packed = pack();
    expect(packed).toBe(
      [
        '![A picture](https://github.com/owner/name/raw/v1.2.3/docs/demo.svg)',
        '[design](https://github.com/owner/name/blob/v1.2.3/docs/DESIGN.md#rules), [site](https://example.com/a), ' +
          '[below](#below), [mail](mailto:a@example.com)',
        '',
      ].join('\n'),
    );
    // After an interrupted pack, the next one starts from the same text.
    expect(pack()).toBe(packed);
    expect(pack('--restore')).toBe(README);
    expect(existsSync(join(folder, 'README.md.kept'))).toBe(false);
  },
);

test('links stay without a repository', () => {
  const { pack } = treeWith({});
  expect(pack()).toBe(README);
  expect(pack('--restore')).toBe(README);
});
