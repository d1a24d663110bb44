/** `remove` as a process: what it says, what it removes, and what it leaves alone. */

import { spawn } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Core } from '../../src/wasm/core.ts';
import { eventsOf, type Result, runCommand, startCommand } from '../cli/command.ts';
import { crashCopy, IMAGE_BYTES, leaveCopy, makeImage } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { describeWith } from '../support/tools.ts';

const FILES = ['disk', 'disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'];
/** A quarter was copied, and 100 bytes of another block were written. */
const LOSS = 'disk: 256 KiB of 1 MiB copied; 100 bytes written by users exist only here';
const FIELDS = {
  target: 'disk',
  files: FILES,
  size: IMAGE_BYTES,
  copiedBytes: IMAGE_BYTES / 4 + 100,
  modifiedBytes: 100,
};

/** A directory with an image, a copy of it at `disk`, and files with similar names. */
async function withCopy(make: typeof leaveCopy = leaveCopy): Promise<string> {
  const directory = temporaryDirectory();
  await make(makeImage(directory), directory);
  writeFileSync(join(directory, 'disk.bak.old'), 'old');
  writeFileSync(join(directory, 'disk.order'), 'order');
  return directory;
}

const OTHERS = ['disk.bak.old', 'disk.order', 'image'];

function remove(directory: string, ...flags: string[]): Promise<Result> {
  return runCommand(['remove', 'disk', ...flags], { cwd: directory });
}

test('--yes says what is lost, and removes the copy and nothing else; again there is no copy', async () => {
  const directory = await withCopy();
  const result = await remove(directory, '--yes');
  expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: `${LOSS}\nremoved ${FILES.join(', ')}\n` });
  expect(readdirSync(directory).sort()).toEqual(OTHERS);
  const again = await remove(directory, '--yes');
  expect(again).toMatchObject({ exitCode: 1, stdout: '' });
  expect(again.stderr).toBe('copyondemand: COD_NOT_FOUND: there is no copy at disk; nothing was removed\n');
  const anew = await runCommand(['copy', 'image', 'disk', '--quiet'], { cwd: directory });
  expect(anew).toMatchObject({ exitCode: 0, stderr: '' });
});

test('without --yes and a terminal it says what would be lost, exits with 2 and changes nothing', async () => {
  const directory = await withCopy(crashCopy);
  const before = contentsOf(directory);
  const result = await remove(directory);
  expect(result).toMatchObject({ exitCode: 2, stdout: '' });
  expect(result.stderr).toBe(
    `${LOSS}\ncopyondemand: nothing was removed: pass --yes to remove disk and its metadata\n`,
  );
  expect(contentsOf(directory)).toEqual(before);
});

test('--json prints one object: what was removed, or what would be', async () => {
  const directory = await withCopy();
  const before = contentsOf(directory);
  const refused = await remove(directory, '--json');
  expect(refused.exitCode).toBe(2);
  expect(eventsOf(refused)).toEqual([
    { event: 'error', code: 'UsageError', message: expect.stringContaining('--yes'), details: FIELDS },
  ]);
  expect(contentsOf(directory)).toEqual(before);
  const result = await remove(directory, '--json', '--yes');
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expect(eventsOf(result)).toEqual([{ event: 'done', ...FIELDS }]);
  const again = await remove(directory, '--json', '--yes');
  expect(eventsOf(again)).toEqual([
    { event: 'error', code: 'COD_NOT_FOUND', message: expect.stringContaining('no copy'), details: { target: 'disk' } },
  ]);
});

describe('says of', () => {
  test('a complete copy that its image is lost', async () => {
    const directory = temporaryDirectory();
    makeImage(directory);
    // The digest is wrong, so the complete copy keeps its metadata, as that of `serve`.
    await runCommand(['copy', 'image', 'disk', '--sha256', 'ab'.repeat(32)], { cwd: directory });
    const result = await remove(directory);
    expect(result.stderr).toContain('disk: a complete image of 1 MiB; users wrote nothing\n');
    expect(result.exitCode).toBe(2);
  });

  test('a copy with damaged metadata that users may have written, and removes it', async () => {
    const directory = await withCopy();
    for (const name of ['disk.bak', 'disk.bak.1']) {
      const bytes = readFileSync(join(directory, name));
      bytes[42]! ^= 1;
      writeFileSync(join(directory, name), bytes);
    }
    const result = await remove(directory, '--yes');
    expect(result.stderr).toContain('disk: its metadata cannot be read; what users wrote would be lost\n');
    expect(result.exitCode).toBe(0);
    expect(readdirSync(directory).sort()).toEqual(OTHERS);
  });

  test('a target of another size that another program changed it', async () => {
    const directory = await withCopy();
    truncateSync(join(directory, 'disk'), 2048);
    expect((await remove(directory)).stderr).toContain(`${LOSS}; the file has 2 KiB, so another program changed it\n`);
  });

  test('a missing target that it is missing, and removes the metadata', async () => {
    const directory = await withCopy();
    unlinkSync(join(directory, 'disk'));
    const result = await remove(directory, '--yes');
    expect(result.stderr).toContain('disk: the file is missing; according to its metadata 256 KiB of 1 MiB copied\n');
    expect(readdirSync(directory).sort()).toEqual(OTHERS);
  });

  test('a copy in format 1 that users may have written all of it', async () => {
    const directory = temporaryDirectory();
    const golden = fileURLToPath(new URL('../fixtures/golden/dirty-heavy/', import.meta.url));
    cpSync(golden, directory, { recursive: true });
    writeFileSync(join(directory, 'disk.raw'), new Uint8Array(2 ** 20));
    const result = await runCommand(['remove', 'disk.raw', '--yes'], { cwd: directory });
    expect(result.stderr).toMatch(/^disk\.raw: (\S+ KiB) of 1 MiB copied; \1 written by users exist only here\n/);
    expect(readdirSync(directory)).toEqual(['expected.json']);
  });
});

describe('refuses', () => {
  async function expectRefusal(directory: string, code: string, says: string): Promise<void> {
    const before = contentsOf(directory);
    for (const flags of [['--yes'], [], ['--yes', '--json']]) {
      const result = await remove(directory, ...flags);
      expect(result.exitCode).toBe(1);
      expect(result.stderr).toMatch(new RegExp(`^copyondemand: ${code}: .+\n$`));
      expect(result.stderr).toContain(says);
      if (flags.includes('--json')) expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
      expect(contentsOf(directory)).toEqual(before);
    }
  }

  test('a complete image without metadata', async () => {
    const directory = temporaryDirectory();
    makeImage(directory);
    await runCommand(['copy', 'image', 'disk', '--quiet'], { cwd: directory });
    await expectRefusal(directory, 'COD_NOT_FOUND', 'disk is not an unfinished copy: it has no metadata');
  });

  test('a directory, and a path in a missing directory', async () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, 'disk'));
    await expectRefusal(directory, 'COD_TARGET_IO', 'disk');
    const result = await runCommand(['remove', 'missing/disk', '--yes'], { cwd: directory });
    expect(result.stderr).toMatch(/^copyondemand: COD_NOT_FOUND: /);
  });

  test('an empty path', async () => {
    const result = await runCommand(['remove', '', '--yes', '--json']);
    expect(result).toMatchObject({ exitCode: 2, stderr: 'copyondemand: TARGET is empty: give the path of a copy\n' });
    expect(eventsOf(result)).toMatchObject([{ event: 'error', code: 'UsageError' }]);
  });

  test.each(FILES.slice(1))('a foreign file at %s', async (name) => {
    const directory = await withCopy();
    writeFileSync(join(directory, name), 'precious');
    await expectRefusal(directory, 'COD_EXISTS', `${name}: not metadata of a copy`);
  });

  test('metadata of a newer version', async () => {
    const directory = await withCopy();
    for (const name of ['disk.bak', 'disk.bak.1']) {
      const bytes = readFileSync(join(directory, name));
      bytes.writeBigUInt64LE(3n, 8);
      bytes.writeUInt32LE(Core.create().crc32c(bytes.subarray(0, 500)), 500);
      writeFileSync(join(directory, name), bytes);
    }
    await expectRefusal(directory, 'COD_VERSION', 'newer package');
  });

  test('a copy that a server has open, also by another name, and removes it once the server has ended', async () => {
    const directory = await withCopy();
    symlinkSync('disk', join(directory, 'alias'));
    let listening: () => void;
    const ready = new Promise<void>((resolve) => (listening = resolve));
    const server = startCommand(['serve', 'image', 'disk', '--socket', 's', '--rate', '1'], {
      cwd: directory,
      onLine: () => listening(),
    });
    onTestFinished(() => void server.child.kill('SIGKILL'));
    await ready;
    for (const name of ['disk', 'alias']) {
      const refused = await runCommand(['remove', name, '--yes'], { cwd: directory });
      expect(refused.exitCode).toBe(1);
      expect(refused.stderr).toMatch(/^copyondemand: COD_LOCKED: .+disk\.lock: in use by process \d+.*\n$/);
    }
    server.child.kill('SIGTERM');
    expect((await server.result).exitCode).toBe(0);
    expect((await remove(directory, '--yes')).exitCode).toBe(0);
    expect(readdirSync(directory).sort()).toEqual(['alias', ...OTHERS].sort());
  });
});

test('removes the file that a symbolic link names and the metadata beside the link, and keeps the link', async () => {
  const directory = temporaryDirectory();
  const volume = temporaryDirectory();
  writeFileSync(join(volume, 'image'), 'another');
  await leaveCopy(makeImage(directory), directory);
  copyFileSync(join(directory, 'disk'), join(volume, 'file'));
  rmSync(join(directory, 'disk'));
  symlinkSync(join(volume, 'file'), join(directory, 'disk'));
  const metadata = FILES.slice(1);
  for (const name of metadata) copyFileSync(join(directory, name), join(volume, name));

  const result = await remove(directory, '--yes', '--json');
  expect(eventsOf(result)).toEqual([{ event: 'done', ...FIELDS, files: [join(volume, 'file'), ...metadata] }]);
  expect(readdirSync(volume).sort()).toEqual([...metadata, 'image']);
  expect(readdirSync(directory)).toEqual(['disk', 'image']);
  expect(lstatSync(join(directory, 'disk')).isSymbolicLink()).toBe(true);

  // After an interruption between the file and the metadata.
  for (const name of metadata) copyFileSync(join(volume, name), join(directory, name));
  expect(await remove(directory, '--yes')).toMatchObject({ exitCode: 0 });
  expect(readdirSync(directory)).toEqual(['disk', 'image']);
});

describeWith(['script'], 'on a terminal', () => {
  const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

  /** Runs the command on a terminal, and answers its question. */
  async function answer(directory: string, text: string): Promise<{ exitCode: number | null; printed: string }> {
    const command = `'${process.execPath}' '${main}' remove disk`;
    const child = spawn('script', ['-qec', command, '/dev/null'], {
      cwd: directory,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    let printed = '';
    child.stdout.setEncoding('utf8').on('data', (piece: string) => {
      const isAsked = printed.includes('[y/N]');
      printed += piece;
      if (!isAsked && printed.includes('[y/N]')) child.stdin.write(text);
    });
    const exitCode = await new Promise<number | null>((resolve) => child.once('close', resolve));
    return { exitCode, printed };
  }

  test.each(['y\n', 'Yes\n'])('removes the copy when the answer is %j', async (text) => {
    const directory = await withCopy();
    const { exitCode, printed } = await answer(directory, text);
    expect(printed).toContain(LOSS);
    expect(exitCode).toBe(0);
    expect(readdirSync(directory).sort()).toEqual(OTHERS);
  });

  test.each([
    ['no', 'n\n', 'nothing was removed'],
    ['nothing', '\n', 'nothing was removed'],
    ['something else', 'yesterday\n', 'nothing was removed'],
    ['the end of input', '\u0004', 'nothing was removed'],
    ['Ctrl-C', '\u0003', 'interrupted by SIGINT'],
  ])('changes nothing when the answer is %s', async (_name, text, says) => {
    const directory = await withCopy();
    const before = contentsOf(directory);
    const { exitCode, printed } = await answer(directory, text);
    expect(printed).toContain(`copyondemand: ${says}`);
    expect(exitCode).toBe(130);
    expect(contentsOf(directory)).toEqual(before);
  });
});

test('a copy of another source names the command that removes it', async () => {
  const directory = await withCopy();
  writeFileSync(join(directory, 'image'), 'another image');
  const result = await runCommand(['copy', 'image', 'disk', '--quiet'], { cwd: directory });
  expect(result.stderr).toMatch(/COD_SIZE_MISMATCH: .+`copyondemand remove`/);
});
