/** Times the cases of the core, in Node and browsers. */

import { BlockMap } from '../../src/core/block-map.ts';
import { geometry, sliceCount } from '../../src/core/geometry.ts';
import { GrowingBuffer } from '../../src/core/growing-buffer.ts';
import { Core } from '../../src/wasm/core.ts';
import { format1, format2, histories, maps, replayFormat1, replayFormat2 } from './core-cases.ts';

/** Shortest measurement. A browser's clock may have a resolution of 0.1 ms. */
const LEAST_MS = 20;

interface Prepared {
  run(): unknown;
  /** Changes the state, so that the next run has work to do. */
  between?: () => void;
}

const cases = new Map<string, () => Promise<Prepared>>();
for (const history of histories) {
  const prepare = (): { shape: ReturnType<typeof geometry>; core: Core } => ({
    shape: geometry({ size: history.blocks * 4096, blockSize: 4096 }),
    core: Core.create(),
  });
  cases.set(`replay, ${history.name}, format 1`, async () => {
    const { shape, core } = prepare();
    const log = format1(history);
    return { run: () => replayFormat1(core, shape, log) };
  });
  cases.set(`replay, ${history.name}, format 2`, async () => {
    const { shape, core } = prepare();
    const log = format2(core, history);
    return { run: () => replayFormat2(core, shape, log) };
  });
}
for (const { name, fill } of maps) {
  cases.set(`serialization, ${name}`, async () => {
    const shape = geometry({ size: 2 ** 40, blockSize: 4096 });
    const map = await BlockMap.open(shape);
    fill(map);
    const buffer = new GrowingBuffer();
    let block = 2 ** 28;
    /** All slices, as in a checkpoint of all of them. */
    const run = (): void => {
      for (let slice = 0; slice < sliceCount(shape); slice++) {
        buffer.truncate(0);
        map.serialize(slice, buffer);
      }
    };
    return { run, between: () => map.add(block - 1, block--) };
  });
}

/** The names of the cases. */
export const coreCases: readonly string[] = [...cases.keys()];

/** Prepares a case. Resolves to a function that times it, in ms per run. */
export async function coreTimer(name: string): Promise<() => Promise<number>> {
  const { run, between } = await cases.get(name)!();
  return async () => {
    let runs = 0;
    const start = performance.now();
    let elapsed = 0;
    do {
      between?.();
      await run();
      runs++;
      elapsed = performance.now() - start;
    } while (elapsed < LEAST_MS);
    return elapsed / runs;
  };
}
