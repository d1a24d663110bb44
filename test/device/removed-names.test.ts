/** A platform that removes the files of an open copy, as a browser does: the device is poisoned, also at rest. */

import { describe, expect, it } from 'vitest';
import { type Device, openDevice } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { CrashingFileSystem } from '../../src/testing/index.ts';

const GONE = { code: 'COD_POISONED', message: expect.stringContaining('disk is gone') };

/** A device whose names `remove` takes away. `tell` is what the platform does when it finds that out. */
async function open(): Promise<{ device: Device; remove: () => void; tell: () => void; ended: () => boolean }> {
  let removed = false;
  let ended = false;
  let tell = (): void => undefined;
  const files = Object.assign(new CrashingFileSystem(), {
    watch: (onRemoved: () => void) => {
      tell = onRemoved;
      return { check: async () => (removed ? 'is gone' : undefined), end: () => void (ended = true) };
    },
  });
  const source = bytesSource(new Uint8Array(64 * 4096));
  const device = await openDevice({ source, fileSystem: files, target: 'disk', hydrate: false });
  await device.write(new Uint8Array(9).fill(1), 0);
  await device.flush();
  return { device, remove: () => void (removed = true), tell: () => tell(), ended: () => ended };
}

describe('a copy whose files were removed', () => {
  it.each([
    ['flush', (device: Device) => device.flush()],
    ['checkpoint', (device: Device) => device.checkpoint()],
    ['write with FUA', (device: Device) => device.write(new Uint8Array(9), 0, { fua: true })],
    ['close', (device: Device) => device.close()],
  ])('acknowledges no %s', async (_, call) => {
    const { device, remove, ended } = await open();
    remove();
    await expect(call(device)).rejects.toMatchObject(GONE);
    await device.close().catch(() => undefined);
    expect(ended()).toBe(true);
  });

  it('is poisoned without a call', async () => {
    const { device, remove, tell } = await open();
    const events = device.events()[Symbol.asyncIterator]();
    remove();
    tell();
    expect((await events.next()).value).toMatchObject({ type: 'error', code: 'COD_POISONED' });
    expect((await events.next()).value).toEqual({ type: 'state', state: 'poisoned' });
    expect(device.status().state).toBe('poisoned');
    await expect(device.hydrated).rejects.toMatchObject(GONE);
    await expect(device.read(new Uint8Array(1), 0)).rejects.toMatchObject(GONE);
    await device.close().catch(() => undefined);
  });
});
