/** Metadata that is not beside its target. */

import { Volume } from 'memfs';
import { expect, test } from 'vitest';
import { bytesSource, inspectMetadata, openDevice, removeCopy } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';

const SIZE = 2 ** 20;
const source = bytesSource(new Uint8Array(SIZE).fill(7), { identity: 'sevens' });

function makePlace() {
  const volume = Volume.fromJSON({ '/disks': null, '/state': null } as never);
  volume.mkdirSync('/disks', { recursive: true });
  volume.mkdirSync('/state', { recursive: true });
  const fileSystem = memfsFileSystem(volume);
  const place = { fileSystem, target: '/disks/a', metadata: '/state/a' };
  return { volume, fileSystem, place };
}

test('the metadata files have the prefix, and nothing is beside the target', async () => {
  const { volume, fileSystem, place } = makePlace();
  const device = await openDevice({ ...place, source, hydrate: false });
  await device.write(new Uint8Array(4096).fill(1), 8192);
  await device.close();
  expect(volume.readdirSync('/disks')).toEqual(['a']);
  expect((volume.readdirSync('/state') as string[]).every((name) => /^a\.(bak|wil)(\.1)?$/.test(name))).toBe(true);
  const inspection = await inspectMetadata(fileSystem, '/disks/a', { metadata: '/state/a' });
  expect(inspection).toMatchObject({ target: '/disks/a', synced: [[2, 2]] });

  // Without the prefix it is a file of another program.
  await expect(openDevice({ fileSystem, target: '/disks/a', source })).rejects.toMatchObject({ code: 'COD_EXISTS' });
  await expect(openDevice({ ...place, source, metadata: '' })).rejects.toThrow(TypeError);

  const again = await openDevice({ ...place, source });
  await expect(openDevice({ ...place, source })).rejects.toMatchObject({ code: 'COD_LOCKED' });
  await expect(again.snapshot('/disks/b')).resolves.toBeUndefined();
  await again.hydrated;
  await again.finish();
  expect(volume.readdirSync('/state')).toEqual([]);
  expect((volume.readdirSync('/disks') as string[]).slice(0, 2)).toEqual(['a', 'b']);

  const snapshot = await openDevice({ fileSystem, target: '/disks/b', source, hydrate: false });
  const bytes = new Uint8Array(4096);
  await snapshot.read(bytes, 8192);
  expect(bytes).toEqual(new Uint8Array(4096).fill(1));
  await snapshot.close();
});

test('a removal takes the metadata by its prefix', async () => {
  const { volume, place } = makePlace();
  const device = await openDevice({ ...place, source, hydrate: false });
  await device.write(new Uint8Array(4096).fill(1), 8192);
  await device.close();
  await removeCopy(place);
  expect([volume.readdirSync('/disks'), volume.readdirSync('/state')]).toEqual([[], []]);
});
