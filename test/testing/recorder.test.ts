import { Volume } from 'memfs';
import { describe, expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { type FileSystem, isCodError } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import {
  CrashingFileSystem,
  FileSystemRecorder,
  fileSystemSuite,
  replayTrace,
  SimulatedClock,
  seededRandom,
} from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';

const NAMES = ['disk', 'disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'];

async function contentOf(fileSystem: FileSystem, name: string): Promise<Uint8Array | undefined> {
  const file = await fileSystem.open(name).catch((error: unknown) => {
    if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
    throw error;
  });
  if (file === undefined) return undefined;
  const bytes = new Uint8Array(await file.size());
  await file.read(bytes, 0);
  await file.close();
  return bytes;
}

async function expectSameFiles(found: FileSystem, expected: FileSystem): Promise<void> {
  for (const name of NAMES) {
    const [one, other] = [await contentOf(found, name), await contentOf(expected, name)];
    expect(one === undefined, name).toBe(other === undefined);
    if (one !== undefined) expectBytes(one, other!);
  }
}

/** Replays a whole trace and returns the kinds of its steps. */
async function replayed(trace: Uint8Array | string, fileSystem: FileSystem): Promise<string[]> {
  const steps: string[] = [];
  for await (const { op } of replayTrace(trace, fileSystem)) steps.push(op);
  return steps;
}

/** Opens a device on the existing files, writes, checkpoints and closes it. Ignores injected storage errors. */
async function useDevice(fileSystem: FileSystem, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const source = seededRandom(99).fill(new Uint8Array(6 * 4096 + 100));
  const device = await openDeviceIn(
    {
      clock: new SimulatedClock({ settle: () => new Promise(setImmediate) }),
      randomBytes: (into) => random.fill(into),
    },
    { source: bytesSource(source, { identity: 'it' }), fileSystem, target: 'disk', hydrate: false },
  );
  const quietly = (work: Promise<void>): Promise<void> => work.catch(() => undefined);
  for (let count = 0; count < 10; count++) {
    const offset = random.below(source.length);
    await quietly(device.write(random.fill(new Uint8Array(1 + random.below(source.length - offset))), offset));
    if (random.oneIn(3)) await quietly(device.checkpoint());
    if (random.oneIn(4)) await quietly(device.flush());
  }
  await quietly(device.close());
}

describe('the conformance suite over a recorded file system', () => {
  for (const { name, run } of fileSystemSuite(() => new FileSystemRecorder(new CrashingFileSystem()).fileSystem, {
    locks: false,
  }))
    it(name, run);
});

describe('a recorder', () => {
  it('writes a trace that replays over memfs to the same bytes in every file', async () => {
    const inner = memfsFileSystem();
    const recorder = new FileSystemRecorder(inner);
    await useDevice(recorder.fileSystem, 1);
    const again = memfsFileSystem();
    const steps = await replayed(recorder.trace(), again);
    // A write of a part of a cell reads the rest of the cell.
    expect(new Set(steps)).toEqual(new Set(['open', 'size', 'read', 'write', 'truncate', 'sync', 'close']));
    await expectSameFiles(again, inner);
  });

  it('records the initial contents of files, so that a trace is self-contained', async () => {
    const inner = memfsFileSystem();
    await useDevice(inner, 1);
    const recorder = new FileSystemRecorder(inner);
    await useDevice(recorder.fileSystem, 2);
    const again = memfsFileSystem();
    expect(await replayed(recorder.trace(), again)).toEqual(expect.arrayContaining(['content', 'read']));
    await expectSameFiles(again, inner);
  });

  it('records failed calls, and their partial effects', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const inner = new CrashingFileSystem({ random: seededRandom(seed) });
      const recorder = new FileSystemRecorder(inner);
      // A failed sync changes files by itself, which a trace of calls cannot describe.
      inner.failWhen(({ kind, number }) => kind !== 'sync' && number > 60 && number % 5 === 0, {
        stays: true,
        code: 'COD_NO_SPACE',
      });
      await useDevice(recorder.fileSystem, seed).catch(() => undefined);
      inner.clearFaults();
      expect(new TextDecoder().decode(recorder.trace())).toContain('"error":"COD_NO_SPACE"');
      const again = memfsFileSystem();
      await replayed(recorder.trace(), again);
      await expectSameFiles(again, inner);
    }
  });

  it('replays step by step, with the recorded contents after each step', async () => {
    const inner = new CrashingFileSystem();
    const recorder = new FileSystemRecorder(inner);
    const file = await recorder.fileSystem.open('disk', { create: true });
    await file.write(Uint8Array.of(1, 2, 3), 0);
    await file.write(new Uint8Array(100).fill(7), 3);
    await file.truncate(50);
    await file.close();
    const again = memfsFileSystem();
    const sizes: (number | undefined)[] = [];
    for await (const step of replayTrace(recorder.trace(), again))
      sizes.push(step.op === 'close' ? -1 : (await contentOf(again, 'disk'))?.length);
    expect(sizes).toEqual([0, 3, 103, 50, -1]);
  });

  it('ends a trace that would be too long, and marks it as incomplete', async () => {
    const recorder = new FileSystemRecorder(new CrashingFileSystem(), { maxBytes: 2000 });
    const file = await recorder.fileSystem.open('disk', { create: true });
    for (let count = 0; count < 100; count++)
      await file.write(seededRandom(count).fill(new Uint8Array(100)), 100 * count);
    expect(recorder.isCut).toBe(true);
    expect(recorder.trace().length).toBeLessThan(2500);
    const steps = await replayed(recorder.trace(), memfsFileSystem());
    expect(steps.at(-1)).toBe('cut');
    expect(steps.length).toBeLessThan(20);
  });
});

describe('a trace', () => {
  const header = '{"trace":"copyondemand","version":1}\n';
  const open = '{"op":"open","name":"disk","create":true,"file":1}\n';

  it.each([
    ['nothing', ''],
    ['invalid JSON', 'what\n'],
    ['another JSON', '{"a":1}\n'],
    ['a missing version', '{"trace":"copyondemand"}\n'],
    ['an array', '[]\n'],
    ['a line cut short', `${header}{"op":"op`],
    ['the last newline missing', header.trimEnd()],
    ['an unknown operation', `${header}{"op":"rename"}\n`],
    ['an operation named like a built-in property', `${header}{"op":"constructor"}\n`],
    ['a field too many', `${header}{"op":"remove","name":"a","force":true}\n`],
    ['a field too few', `${header}{"op":"remove"}\n`],
    ['a file that is not open', `${header}{"op":"sync","file":3}\n`],
    ['a file that is open already', `${header}${open}${open}`],
    ['a negative offset', `${header}${open}{"op":"write","file":1,"offset":-1,"bytes":{"base64":""}}\n`],
    [
      'a range beyond safe integers',
      `${header}${open}{"op":"read","file":1,"offset":9007199254740991,"length":1,"sum":0}\n`,
    ],
    ['invalid base64', `${header}${open}{"op":"write","file":1,"offset":0,"bytes":{"base64":"?!"}}\n`],
    [
      'a fill that is not a byte',
      `${header}${open}{"op":"write","file":1,"offset":0,"bytes":{"fill":256,"length":1}}\n`,
    ],
    ['an open without an outcome', `${header}{"op":"open","name":"disk","create":true}\n`],
    ['another size', `${header}${open}{"op":"size","file":1,"size":5}\n`],
    ['a read of other bytes', `${header}${open}{"op":"read","file":1,"offset":0,"length":0,"sum":5}\n`],
    ['invalid UTF-8', Uint8Array.of(0xff, 0xfe, 10)],
  ])('with %s is refused with COD_CORRUPT', async (_, trace) => {
    await expect(replayed(trace, memfsFileSystem())).rejects.toMatchObject({ code: 'COD_CORRUPT' });
  });

  it('of another version is refused with COD_VERSION', async () => {
    await expect(replayed('{"trace":"copyondemand","version":2}\n', memfsFileSystem())).rejects.toMatchObject({
      code: 'COD_VERSION',
    });
  });

  it('that exceeds a limit is refused before it is replayed', async () => {
    const huge = `${header}${open}{"op":"write","file":1,"offset":0,"bytes":{"fill":0,"length":4503599627370496}}\n`;
    await expect(replayed(huge, memfsFileSystem())).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    const long = `${header}${open}{"op":"truncate","file":1,"size":4503599627370496}\n`;
    await expect(replayed(long, memfsFileSystem())).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
  });

  it('with any byte changed is replayed, or refused with a code, and never hangs', async () => {
    const recorder = new FileSystemRecorder(memfsFileSystem(new Volume()));
    const file = await recorder.fileSystem.open('disk', { create: true });
    await file.write(Uint8Array.of(1, 2, 3), 0);
    await file.read(new Uint8Array(3), 0);
    await file.close();
    const trace = recorder.trace();
    let refused = 0;
    for (let at = 0; at < trace.length; at++) {
      const changed = trace.slice();
      changed[at]! ^= 1 << (at % 8);
      try {
        await replayed(changed, memfsFileSystem());
      } catch (error) {
        if (!isCodError(error)) throw error;
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(trace.length / 2);
  });
});
