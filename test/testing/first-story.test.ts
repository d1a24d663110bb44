/** The first story of a program starts before roaring-wasm is compiled. */

import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { bundleUser } from '../support/own-package.ts';

it('the first log of a program opens in simulated time', async () => {
  const path = await bundleUser(`
    import { openIntentLog } from 'copyondemand/log';
    import { CrashingFileSystem, SimulatedClock } from 'copyondemand/testing';

    const clock = new SimulatedClock();
    const environment = { clock, randomBytes: (into) => into.fill(1) };
    const storage = { read: async () => undefined, sync: async () => undefined };
    const fileSystem = new CrashingFileSystem({ clock });
    const opening = openIntentLog({ fileSystem, name: 'log', size: 5000, storage, environment });
    const log = await clock.run(opening, { limitMs: 1000 });
    export const { size } = log;
  `);
  expect(await import(/* @vite-ignore */ pathToFileURL(path).href)).toMatchObject({ size: 5000 });
});
