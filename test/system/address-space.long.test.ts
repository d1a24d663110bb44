/** Each instance of a WebAssembly memory reserves 10 GiB of address space. So devices share a few of them. */

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bundleForNode } from '../support/bundle.ts';

const GIB = 2 ** 30;

describe.runIf(process.platform === 'linux')('100 devices of a process', () => {
  let folder: string;
  let program: string;
  beforeAll(async () => {
    program = await bundleForNode('many-devices-user.ts');
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'cod-many-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it.each(['in turn', 'at once'])('that are opened %s, and again, reserve less than 40 GiB', async (how) => {
    // The second process recovers what the first one made.
    for (let life = 0; life < 2; life++) {
      const { stdout } = await promisify(execFile)(process.execPath, [program, folder, '100', how]);
      const { before, after } = JSON.parse(stdout) as { before: number; after: number };
      expect((after - before) / GIB).toBeLessThan(40);
    }
  });
});
