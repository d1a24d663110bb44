/** The adapters of examples/adapters with the packages that they are for, over a device that is being copied. */

import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'cod-adapters-'));

beforeAll(async () => {
  cpSync(join(root, 'examples', 'adapters'), folder, { recursive: true });
  const { copyondemand: _, ...dependencies } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  ).dependencies;
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, type: 'module', dependencies }));
  await run('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'], { cwd: folder });
  symlinkSync(root, join(folder, 'node_modules', 'copyondemand'));
}, 600_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a program beside the adapters, with a `device` whose background copy waits, and returns what it prints. */
async function printed(program: string): Promise<unknown[]> {
  const text = `
    import { bytesSource, openDevice } from 'copyondemand';
    import { memfsFileSystem } from 'copyondemand/memfs';
    const image = Uint8Array.from({ length: 600_001 }, (_, index) => (index * 7) % 251);
    const device = await openDevice({ source: bytesSource(image), fileSystem: memfsFileSystem(), target: '/disk.raw' });
    device.pause();
    const shown = (value) => value?.code ?? value?.name ?? value;
    const print = (...values) => console.log(JSON.stringify(values.map(shown)));
    const failure = (promise) => promise.then(() => 'none', (error) => error);
    ${program}
    await device.close();`;
  writeFileSync(join(folder, 'main.js'), text);
  const { stdout } = await run(process.execPath, ['main.js'], { cwd: folder });
  return stdout
    .trim()
    .split('\n')
    .flatMap((line) => JSON.parse(line));
}

test('random-access-storage reads and writes a device, within its size', async () => {
  const found = await printed(`
    import { randomAccessStorage } from './random-access-storage.js';
    import { promisify } from 'node:util';
    const storage = randomAccessStorage(device);
    const call = (name, ...args) => promisify(storage[name]).call(storage, ...args);
    print((await call('stat')).size, [...(await call('read', 5, 3))], device.status().state);
    await call('write', 5, Uint8Array.of(1, 2));
    print([...(await call('read', 4, 4))]);
    print(await failure(call('read', 600_000, 2)), await failure(call('write', 600_001, Uint8Array.of(1))));
    await call('close');
    print(device.status().flushes.count);`);
  expect(found).toEqual([600_001, [35, 42, 49], 'paused', [28, 1, 2, 49], 'RangeError', 'RangeError', 1]);
}, 60_000);

test('ZenFS reads and writes a device as a file of fixed size', async () => {
  const found = await printed(`
    import { DeviceBackend } from './zenfs.js';
    import { configure, fs } from '@zenfs/core';
    await configure({ mounts: { '/': { backend: DeviceBackend, device } } });
    const { promises } = fs;
    print(await promises.readdir('/'), (await promises.stat('/disk.raw')).size);
    print(Buffer.compare(await promises.readFile('/disk.raw'), image), device.status().state);
    const file = await promises.open('/disk.raw', 'r+');
    await file.write(Uint8Array.of(9, 8), 0, 2, 100);
    const bytes = new Uint8Array(2);
    await device.read(bytes, 100);
    print([...bytes], await failure(file.write(Uint8Array.of(1, 1), 0, 2, 600_000)));
    const before = device.status().flushes.count;
    await file.sync();
    print(device.status().flushes.count - before);
    await file.close();
    print(await failure(promises.writeFile('/disk.raw', 'short')), await failure(promises.writeFile('/other', 'x')));
    print(await failure(promises.unlink('/disk.raw')), await failure(promises.rename('/disk.raw', '/other')));`);
  expect(found).toEqual([
    ['disk.raw'],
    600_001,
    0,
    'paused',
    [9, 8],
    'ENOSPC',
    1,
    ...['EPERM', 'EROFS', 'EROFS', 'EROFS'],
  ]);
}, 60_000);
