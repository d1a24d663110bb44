/** The interface of the wasm core that src/ assumes (src/wasm/generated/interface.ts, src/wasm/problems.ts). */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { DirtyMap } from '../../src/core/dirty-map.ts';
import { geometry } from '../../src/core/geometry.ts';
import { BARRIER, BASED, CONTINUED, HEADER_BYTES, WRITTEN } from '../../src/core/layout.ts';
import { problemOf } from '../../src/core/log-problems.ts';
import { DIRTY_MAP, ENCODER, REPLAY, SCAN } from '../../src/wasm/generated/interface.ts';
import * as problems from '../../src/wasm/problems.ts';
import { builds } from './builds.ts';
import { words } from './models.ts';

/** The functions of `CoreExports`, and the number of their parameters. */
function declaredFunctions(): Record<string, number> {
  const text = readFileSync(new URL('../../src/wasm/generated/interface.ts', import.meta.url), 'utf8');
  const [, body = ''] = /export interface CoreExports \{\n(.*?)\n\}/s.exec(text) ?? [];
  const functions: Record<string, number> = {};
  for (const line of body.split('\n')) {
    const [, name = line, parameters = ''] = /^ {2}(\w+)\((.*)\): (?:number|void);$/.exec(line) ?? [];
    functions[name] = parameters === '' ? 0 : parameters.split(',').length;
  }
  return functions;
}

describe.each(builds)('the $name core', ({ name, bytes, create }) => {
  const shape = geometry({ size: 10 * 4096, blockSize: 4096 });

  it('exports exactly the declared functions with their parameters, and its memory', () => {
    const module = new WebAssembly.Module(bytes);
    const { exports } = new WebAssembly.Instance(module);
    const functions: Record<string, number> = {};
    const others: string[] = [];
    for (const { name, kind } of WebAssembly.Module.exports(module)) {
      if (kind === 'function') functions[name] = (exports[name] as () => unknown).length;
      else others.push(`${kind} ${name}`);
    }
    expect(functions).toEqual(declaredFunctions());
    expect(others).toEqual(['memory memory']);
    expect(WebAssembly.Module.imports(module)).toEqual([]);
  });

  it.runIf(name === 'release')('has at most 10 kB', () => {
    expect(bytes.length).toBeLessThanOrEqual(10_000);
  });

  it('keeps the counts of a dirty map at their offsets', () => {
    const core = create();
    const map = new DirtyMap(core, shape);
    map.add(3, 0, 8);
    map.add(3, 16, 24);
    map.add(5, 8, 16);
    expect(core.u32(map.handle + DIRTY_MAP.blocks)).toBe(2);
    expect(core.u32(map.handle + DIRTY_MAP.parts)).toBe(3);
  });

  it('keeps the results of a scan, a replay and an encoder at their offsets', () => {
    const core = create();
    const { exports } = core;
    const encoder = exports.encoderOpen(7);
    const seal = (sequence: number, position: number): Uint8Array => {
      const length = exports.encoderSeal(encoder, position, sequence, sequence);
      return core.view(exports.output(), length).slice();
    };
    // 31 records that do not join: the first 30 fill the first sector.
    for (let i = 0; i < 31; i++) exports.encoderAdd(encoder, WRITTEN, i * 1024, 512, 0xffff_ffff);
    const writes = seal(0, HEADER_BYTES);
    expect(core.u32(encoder + ENCODER.frames)).toBe(2);
    exports.encoderAdd(encoder, BASED, 0, 0, 0);
    exports.encoderAdd(encoder, BARRIER, 0, 2, 0);
    exports.encoderAdd(encoder, CONTINUED, 0, 0, 0);
    const end = HEADER_BYTES + writes.length;
    const marks = seal(2, end);
    const log = new Uint8Array(2048);
    log.set(writes);
    log.set(marks, writes.length);
    core.staging.set(log);
    const at = core.staging.byteOffset;

    const scan = exports.scanOpen(shape.size, 7);
    expect(exports.scanFeed(scan, at, 1024)).toBe(0);
    const word = (name: keyof typeof SCAN): number => core.u32(scan + SCAN[name]);
    expect({
      endOffset: core.u64(scan + SCAN.endOffset),
      barrierThrough: core.u64(scan + SCAN.barrierThrough),
      frames: word('frames'),
      records: word('records'),
      torn: word('torn'),
      firmBehind: word('firmBehind'),
      continued: word('continued'),
      basedAnywhere: word('basedAnywhere'),
    }).toEqual({
      endOffset: end + marks.length,
      barrierThrough: 2,
      frames: 3,
      records: 31,
      torn: 0,
      firmBehind: 0,
      continued: 1,
      basedAnywhere: 1,
    });

    const replay = exports.replayOpen(shape.size, 12, 0);
    const old = words(1, 2, 1, 3, 0);
    core.view(at, old.length).set(old);
    expect(exports.replayFormat1(replay, at, 32)).toBe(32);
    expect(core.u32(replay + REPLAY.records)).toBe(2);
    expect(core.u32(replay + REPLAY.ended)).toBe(0);
    expect(exports.replayFormat1(replay, at + 32, 8)).toBe(0);
    expect(core.u32(replay + REPLAY.ended)).toBe(1);
  });

  it('keeps the torn bytes of a scan, and what later frames prove, at their offsets', () => {
    const core = create();
    const { exports } = core;
    const encoder = exports.encoderOpen(7);
    exports.encoderAdd(encoder, WRITTEN, 0, 512, 0);
    const length = exports.encoderSeal(encoder, HEADER_BYTES, 4, 3);
    const frame = core.view(exports.output(), length).slice();
    const log = new Uint8Array(1536);
    // Five bytes of a frame where the first frame is due, and a frame of sequence 4 in the second sector.
    log.set(frame.subarray(0, 5));
    log.set(frame, 512);
    core.staging.set(log);
    const scan = exports.scanOpen(shape.size, 7);
    expect(exports.scanFeed(scan, core.staging.byteOffset, 1536)).toBe(0);
    const found = (['torn', 'firmBehind', 'frames'] as const).map((name) => core.u32(scan + SCAN[name]));
    expect(found).toEqual([5, 3, 0]);
  });
});

describe('the numbers of problems', () => {
  const numbers = Object.entries(problems);

  it('are distinct and ascend from 1', () => {
    expect(numbers.map(([, number]) => number).sort((a, b) => a - b)).toEqual(numbers.map((_, i) => i + 1));
  });

  it.each(numbers.filter(([name]) => name !== 'TOO_MANY_PARTS'))('%s = %d has its own text', (_, kind) => {
    const core = builds[0]!.create();
    const shape = geometry({ size: 4096, blockSize: 4096 });
    const error = problemOf(core, { kind, pointer: 0, offset: 512 }, { geometry: shape });
    expect(error.code).toBe('COD_CORRUPT');
    expect(error.message).toMatch(/^log at offset 512: \w.{10,}$/);
  });
});
