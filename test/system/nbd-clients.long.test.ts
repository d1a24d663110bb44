/** The export as other programs see it, each during a copy from a slow source. */

import { copyFileSync, existsSync, mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { mustRun, runProgram, type Served, startProgram, startServe } from '../support/programs.ts';
import { serveFile } from '../support/range-server.ts';
import { describeWith } from '../support/tools.ts';

const MiB = 2 ** 20;
const IMAGE_BYTES = 24 * MiB;

/** An image of random bytes with some zeros, whose length is not a multiple of the block size. */
function imageBytes(): Uint8Array {
  const bytes = seededRandom(5).fill(new Uint8Array(IMAGE_BYTES - 512));
  bytes.fill(0, 3 * MiB, 5 * MiB);
  return bytes;
}

interface Arena extends Served {
  readonly directory: string;
  readonly image: string;
  readonly target: string;
  readonly source: string;
  readonly args: readonly string[];
}

/** Serves a copy of a slow source: 12 MiB/s, 5 ms per response. */
async function serveSlowly(
  options: { image?: (path: string) => Promise<void> | void; flags?: readonly string[]; bytesPerSecond?: number } = {},
): Promise<Arena> {
  const directory = temporaryDirectory();
  const image = join(directory, 'image');
  if (options.image === undefined) writeFileSync(image, imageBytes());
  else await options.image(image);
  const server = await serveFile(image, { bytesPerSecond: options.bytesPerSecond ?? 12 * MiB, latencyMs: 5 });
  onTestFinished(() => server.close());
  const target = join(directory, 'disk');
  const args = [server.url, target, '--socket', join(directory, 's'), ...(options.flags ?? [])];
  const served = await startServe(...args);
  return { ...served, directory, image, target, source: server.url, args };
}

/** Stops a server, expects a clean exit and returns its output. */
async function stopInOrder({ stop }: Served): Promise<string> {
  const { exitCode, stderr, stdout } = await stop();
  expect(exitCode, stdout + stderr).toBe(0);
  return stderr;
}

interface NbdInfo {
  readonly protocol: string;
  readonly structured: boolean;
  readonly exports: readonly (Readonly<Record<string, unknown>> & { readonly 'export-name': string })[];
}

interface MapEntry {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

describeWith(['nbdinfo'], 'nbdinfo', () => {
  test('finds every capability of the device', async () => {
    const { uri, ...served } = await serveSlowly({ flags: ['--export', 'boot/disk 1'] });
    expect(uri).toContain('nbd+unix:///boot/disk%201?socket=');
    const info = JSON.parse(await mustRun('nbdinfo', '--json', uri)) as NbdInfo;
    expect(info).toMatchObject({ protocol: 'newstyle-fixed', TLS: false, structured: true });
    expect(info.exports[0]).toMatchObject({
      'export-name': 'boot/disk 1',
      'export-size': IMAGE_BYTES - 512,
      contexts: ['base:allocation', 'copyondemand:state', 'copyondemand:modified'],
      is_read_only: false,
      is_rotational: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
    });
    await stopInOrder({ uri, ...served });
  });

  test('lists a read-only export, and refuses another name', async () => {
    const { args, stop } = await serveSlowly();
    await stop();
    const { uri, ...served } = await startServe(...args, '--export', 'a', '--read-only');
    const list = JSON.parse(await mustRun('nbdinfo', '--json', '--list', uri.replace('/a?', '/?'))) as NbdInfo;
    expect(list.exports.map((each) => each['export-name'])).toEqual(['a']);
    expect(list.exports[0]).toMatchObject({ is_read_only: true, can_trim: false, can_zero: false, can_flush: true });
    const wrong = await runProgram('nbdinfo', uri.replace('/a?', '/b?'));
    expect(wrong.exitCode).toBe(1);
    expect(wrong.stderr).toContain('for export: b');
    await stopInOrder({ uri, ...served });
  });

  test('maps copied, missing and partly written blocks', async () => {
    const served = await serveSlowly({ flags: ['--no-hydrate'] });
    await mustRun(
      'nbdsh',
      '-u',
      served.uri,
      '-c',
      'h.pread(65536, 1048576); h.pwrite(b"x" * 100, 2 * 1048576 + 7); h.cache(8192, 4 * 1048576)',
    );
    const state = JSON.parse(await mustRun('nbdinfo', '--json', '--map=copyondemand:state', served.uri)) as MapEntry[];
    expect(state.map(({ offset, length, type }) => [offset, length, type])).toEqual([
      [0, MiB, 1],
      [MiB, 65_536, 0],
      [MiB + 65_536, MiB - 65_536, 1],
      [2 * MiB, 4096, 2],
      [2 * MiB + 4096, 2 * MiB - 4096, 1],
      [4 * MiB, 8192, 0],
      [4 * MiB + 8192, IMAGE_BYTES - 512 - 4 * MiB - 8192, 1],
    ]);
    const allocation = JSON.parse(await mustRun('nbdinfo', '--json', '--map', served.uri)) as MapEntry[];
    expect(allocation.map(({ offset, length, type }) => [offset, length, type])).toEqual([[0, IMAGE_BYTES - 512, 0]]);
    await stopInOrder(served);
  });
});

describeWith(['nbdinfo', 'nbdsh', 'qemu-img'], 'the map of modified blocks for nbdinfo and qemu-img', () => {
  test('has what users modified, as `changes` lists it while the copy is in use and at rest', async () => {
    const served = await serveSlowly({ flags: ['--no-hydrate'] });
    const end = IMAGE_BYTES - 512;
    await mustRun(
      'nbdsh',
      '-u',
      served.uri,
      '-c',
      `h.pread(65536, ${MiB}); h.pwrite(b"x" * 4096, ${MiB} + 8192); h.pwrite(b"x" * 100, ${2 * MiB} + 4090)
h.zero(8192, 3 * ${MiB}); h.pwrite(b"x", ${end - 1}); h.flush()`,
    );
    const modified = [
      [MiB + 8192, 4096],
      [2 * MiB, 8192],
      [3 * MiB, 8192],
      [end - 3584, 3584],
    ];
    const map = JSON.parse(await mustRun('nbdinfo', '--json', '--map=copyondemand:modified', served.uri)) as MapEntry[];
    expect(map.filter(({ type }) => type === 1).map(({ offset, length }) => [offset, length])).toEqual(modified);
    expect(map.filter(({ type }) => type === 0).length).toBe(4);
    expect(map.reduce((at, { offset, length }) => (offset === at ? at + length : Number.NaN), 0)).toBe(end);
    // QEMU takes any context for a dirty bitmap, and shows what is dirty as absent.
    const server = `file.server.type=unix,file.server.path=${join(served.directory, 's')}`;
    const options = `driver=raw,file.driver=nbd,${server},file.x-dirty-bitmap=copyondemand:modified`;
    const found = await mustRun('qemu-img', 'map', '--output=json', '--image-opts', options);
    const dirty = (JSON.parse(found) as { start: number; length: number; data: boolean }[]).filter(({ data }) => !data);
    expect(dirty.map(({ start, length }) => [start, length])).toEqual(modified);
    const lines = modified.map(([offset, length]) => `${offset} ${length}\n`).join('');
    expect(await runCommand(['changes', served.target])).toMatchObject({ exitCode: 0, stdout: lines });
    await stopInOrder(served);
    expect(await runCommand(['changes', served.target])).toMatchObject({ exitCode: 0, stdout: lines });
  });
});

describeWith(['nbdcopy'], 'nbdcopy', () => {
  test('reads the image while it is being copied', async () => {
    const served = await serveSlowly();
    const copy = join(served.directory, 'copied');
    await mustRun('nbdcopy', served.uri, copy);
    expectBytes(readFileSync(copy), imageBytes());
    await stopInOrder(served);
    expectBytes(readFileSync(served.target), imageBytes());
  });

  test('writes another image over one that is being copied', async () => {
    const served = await serveSlowly();
    const other = join(served.directory, 'other');
    const bytes = seededRandom(6).fill(new Uint8Array(IMAGE_BYTES - 512));
    bytes.fill(0, 7 * MiB, 9 * MiB);
    writeFileSync(other, bytes);
    await mustRun('nbdcopy', '--flush', other, served.uri);
    const back = join(served.directory, 'back');
    await mustRun('nbdcopy', served.uri, back);
    expectBytes(readFileSync(back), bytes);
    await stopInOrder(served);
  });
});

describeWith(['nbdsh'], 'nbdsh', () => {
  test('finds each command conforming to the specification', async () => {
    const served = await serveSlowly();
    expect(await mustRun('nbdsh', '-u', served.uri, '-c', NBDSH_SCRIPT)).toContain('every command conforms');
    await stopInOrder(served);
  });
});

const NBDSH_SCRIPT = `
import errno
size = h.get_size()
h.set_strict_mode(0)

def refused(number, task):
    try:
        task()
    except nbd.Error as error:
        assert error.errnum == number, (error.errnum, number, error)
        return
    raise AssertionError("was not refused")

# Writes to the byte, over the edges of blocks.
h.pwrite(b"abc" * 3000, 4090, nbd.CMD_FLAG_FUA)
assert h.pread(9000, 4090) == b"abc" * 3000
h.pwrite(b"z", size - 1)
assert h.pread(1, size - 1) == b"z"
# Zeros, with and without allocation; never fast.
h.zero(5000, 5000)
assert h.pread(5000, 5000) == bytes(5000)
h.pwrite(b"q" * 8192, 1 << 20)
h.zero(8192, 1 << 20, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(8192, 1 << 20) == bytes(8192)
refused(errno.ENOTSUP, lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO))
# Trimmed blocks read as zeros; a partly trimmed block is unchanged.
h.pwrite(b"t" * 16384, 2 << 20)
h.trim(12288, (2 << 20) + 100, nbd.CMD_FLAG_FUA)
assert h.pread(16384, 2 << 20) == b"t" * 4096 + bytes(8192) + b"t" * 4096
h.cache(65536, 3 << 20)
h.flush()
assert h.pread(100, 3 << 20, nbd.CMD_FLAG_DF) == bytes(100)
# Requests that are out of range, empty or unknown are refused, and the connection stays open.
refused(errno.EINVAL, lambda: h.pread(2, size - 1))
refused(errno.ENOSPC, lambda: h.pwrite(b"ab", size - 1))
refused(errno.ENOSPC, lambda: h.zero(2, size - 1))
refused(errno.EINVAL, lambda: h.trim(2, size - 1))
refused(errno.EINVAL, lambda: h.cache(2, size - 1))
refused(errno.EINVAL, lambda: h.pread(1, 1 << 62))
refused(errno.EINVAL, lambda: h.pread(0, 0))
refused(errno.EINVAL, lambda: h.pwrite(b"x", 0, nbd.CMD_FLAG_NO_HOLE))
refused(errno.EINVAL, lambda: h.block_status(4096, 0, lambda *args: 0))
assert h.pread(9000, 4090)[:900] == (b"abc" * 3000)[:900]
print("every command conforms")
`;

describeWith(['qemu-img', 'qemu-io'], 'QEMU', () => {
  test('converts, compares, maps and measures', async () => {
    const served = await serveSlowly();
    const converted = join(served.directory, 'converted');
    await mustRun('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', served.uri, converted);
    expectBytes(readFileSync(converted), imageBytes());
    await mustRun('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', served.uri, served.image);
    const map = JSON.parse(await mustRun('qemu-img', 'map', '--output=json', '-f', 'raw', served.uri)) as {
      length: number;
    }[];
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(IMAGE_BYTES - 512);
    expect(
      await mustRun('qemu-img', 'bench', '-f', 'raw', '-c', '2000', '-d', '16', '-s', '4096', served.uri),
    ).toContain('Run completed');
    await mustRun(
      'qemu-img',
      'bench',
      '-w',
      '-f',
      'raw',
      '-c',
      '500',
      '-d',
      '16',
      '-s',
      '4096',
      '--flush-interval',
      '50',
      served.uri,
    );
    await stopInOrder(served);
  });

  test('converts an image into the export', async () => {
    const served = await serveSlowly();
    const other = join(served.directory, 'other');
    const bytes = seededRandom(7).fill(new Uint8Array(IMAGE_BYTES - 512));
    bytes.fill(0, MiB, 9 * MiB);
    writeFileSync(other, bytes);
    await mustRun('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', other, served.uri);
    await mustRun('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', served.uri, other);
    await stopInOrder(served);
  });

  test('finds the patterns it wrote', async () => {
    const served = await serveSlowly();
    const commands = [
      'write -P 0x5a 1000 3000',
      'read -P 0x5a 1000 3000',
      'write -f -P 3 3M 1M',
      'read -P 3 3M 1M',
      'write -z 1M 64k',
      'read -P 0 1M 64k',
      'write -z -u 8M 2M',
      'read -P 0 8M 2M',
      'discard 12M 1M',
      'aio_write -P 7 6M 512k',
      'aio_write -P 8 6656k 512k',
      'aio_flush',
      'read -P 7 6M 512k',
      'read -P 8 6656k 512k',
      'flush',
    ];
    const output = await mustRun('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), served.uri);
    expect(output).not.toMatch(/Pattern verification failed|failed:/);
    await stopInOrder(served);
  });
});

describeWith(['fio'], 'fio', () => {
  test('verifies random writes of mixed sizes at a queue depth of 16', async () => {
    const served = await serveSlowly({ bytesPerSecond: 4 * MiB });
    const job = [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${served.uri}`,
      '--rw=randwrite',
      '--bsrange=512-128k',
      '--bs_unaligned=0',
    ];
    const how = [
      '--iodepth=16',
      '--size=20M',
      '--verify=crc32c',
      '--do_verify=1',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--randseed=11',
      '--thread=0',
    ];
    const output = await mustRun('fio', ...job, ...how, '--output-format=terse');
    expect(output).toContain('verify');
    await stopInOrder(served);
  });
});

describeWith(['nbdfuse', 'mke2fs', 'e2fsck'], 'an ext4 file system through nbdfuse', () => {
  test.skipIf(!existsSync('/dev/fuse'))('is created during a copy, and is clean', async () => {
    const served = await serveSlowly();
    const mounted = join(served.directory, 'mounted');
    mkdirSync(mounted);
    const fuse = startProgram('nbdfuse', mounted, served.uri);
    const unmount = async (): Promise<void> => {
      fuse.child.kill();
      await fuse.outcome;
    };
    onTestFinished(unmount);
    const disk = join(mounted, 'nbd');
    const ended = fuse.outcome.then(({ stderr }): never => {
      throw new Error(`nbdfuse: ${stderr}`);
    });
    ended.catch(() => undefined);
    await Promise.race([ended, until(() => existsSync(disk))]);
    const files = join(served.directory, 'files');
    mkdirSync(files);
    for (let index = 0; index < 20; index++) writeFileSync(join(files, `file-${index}`), `${index}\n`.repeat(20_000));
    await mustRun('mke2fs', '-q', '-F', '-t', 'ext4', '-d', files, disk, '20M');
    await mustRun('e2fsck', '-f', '-n', disk);
    await unmount();
    await stopInOrder(served);
    await mustRun('e2fsck', '-f', '-n', served.target);
  });
});

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(10);
}

describeWith(['qemu-io', 'qemu-img'], 'a server that is killed', () => {
  test('loses no acknowledged write, and restarts with the same command', async () => {
    const served = await serveSlowly();
    const writes = ['write -P 0x11 0 64k', 'write -P 0x22 5000 700', 'write -P 0x33 20M 1M', 'write -P 0x44 4097 1'];
    // qemu-io flushes when it closes. An abort at the end of its input kills qemu-io before it flushes.
    await runProgram(
      'qemu-io',
      '-f',
      'raw',
      ...writes.flatMap((command) => ['-c', command]),
      '-c',
      'abort',
      served.uri,
    );
    const killed = await served.stop('SIGKILL');
    expect(killed.signal).toBe('SIGKILL');
    expect(existsSync(join(served.directory, 's'))).toBe(true);

    const again = await startServe(...served.args);
    expect(again.uri).toBe(served.uri);
    const reads = [
      'read -P 0x11 0 4097',
      'read -P 0x44 4097 1',
      'read -P 0x22 5000 700',
      'read -P 0x11 6000 50000',
      'read -P 0x33 20M 1M',
    ];
    const output = await mustRun('qemu-io', '-f', 'raw', ...reads.flatMap((command) => ['-c', command]), again.uri);
    expect(output).not.toContain('Pattern verification failed');
    expect(await stopInOrder(again)).toContain('resumes at');
    expect(existsSync(join(served.directory, 's'))).toBe(false);
  });

  test('serves a complete copy, also after a restart, and reports its progress as events', async () => {
    const served = await serveSlowly({ bytesPerSecond: 1024 * MiB, flags: ['--json'] });
    await mustRun('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', served.uri, served.image);
    await mustRun('qemu-io', '-f', 'raw', '-c', 'write -P 9 1M 1M', served.uri);
    const first = await served.stop('SIGINT');
    expect(first.exitCode, first.stderr).toBe(0);
    expect(first.stderr).toBe('');
    const events = eventsOf(first);
    expect(events.slice(0, 2).map(({ event }) => event)).toEqual(['start', 'listening']);
    expect(events.some(({ event }) => event === 'hydrated')).toBe(true);
    expect(events.at(-1)).toMatchObject({ event: 'done', bytes: IMAGE_BYTES - 512 });

    const again = await startServe(...served.args);
    await mustRun('qemu-io', '-f', 'raw', '-c', 'read -P 9 1M 1M', '-c', 'write -P 10 1M 512', again.uri);
    const second = await again.stop();
    expect(second.exitCode).toBe(0);
    expect(eventsOf(second)[0]).toMatchObject({ event: 'start', resumedBytes: IMAGE_BYTES - 512 });
    expect(readFileSync(served.target)[MiB]).toBe(10);
    expect(readFileSync(served.target)[MiB + 512]).toBe(9);
  });

  test('serves synced blocks without its source, and reports that the copy has stopped', async () => {
    const directory = temporaryDirectory();
    const image = join(directory, 'image');
    writeFileSync(image, imageBytes());
    const source = join(directory, 'source');
    copyFileSync(image, source);
    const served = await startServe(
      source,
      join(directory, 'disk'),
      '--socket',
      join(directory, 's'),
      '--rate',
      '1M',
      '--json',
    );
    await mustRun('qemu-io', '-f', 'raw', '-c', 'read 20M 1M', '-c', 'write -P 1 0 4k', served.uri);
    truncateSync(source, statSync(source).size / 2);
    const io = await runProgram('qemu-io', '-f', 'raw', '-c', 'read 15M 1M', '-c', 'read -P 1 0 4k', served.uri);
    expect(io.stdout + io.stderr).toMatch(/read failed: Input\/output error/);
    expect(io.stdout).toContain('read 4096/4096');
    const { exitCode } = await served.stop();
    expect(exitCode).toBe(0);
  });
});
