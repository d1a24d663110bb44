/**
 * States that were once written stay readable: the states of format 1 by datto/copyondemand (test/fixtures/golden), and
 * the states of format 2 (test/fixtures/format2/README.md).
 */

import { describe, expect, it } from 'vitest';
import type { FileSystem } from '../../src/fs/file-system.ts';
import { type Inspection, inspectMetadata } from '../../src/log/inspect.ts';

/** The files of one folder of fixtures, and its `expected.json`. */
export interface Frozen {
  readonly format: 'golden' | 'format2';
  readonly name: string;
  readonly files: readonly { readonly name: string; bytes(): Promise<Uint8Array> }[];
  readonly expected: Expected;
}

type Reading = Omit<Inspection, 'target' | 'size' | 'blockSize' | 'totalBlocks'>;

type Expected =
  | (Pick<Inspection, 'size' | 'blockSize' | 'totalBlocks'> & {
      bootId?: string;
      sameBoot?: Reading;
      otherBoot: Reading;
    })
  | (Pick<Inspection, 'totalBlocks' | 'syncedBlocks' | 'synced' | 'dirty'> & { deviceSize: number });

/** `makeFiles` makes an empty file system, or reopens the one that it made before in another boot. */
export function frozenSuite(
  where: string,
  states: readonly Frozen[],
  makeFiles: () => Promise<{ inBoot(bootId: string | undefined): Promise<FileSystem> | FileSystem }>,
): void {
  describe.each(states)(`the frozen state $format/$name, over ${where},`, ({ files, expected }) => {
    async function load(): Promise<(bootId: string | undefined) => Promise<FileSystem> | FileSystem> {
      const { inBoot } = await makeFiles();
      const fileSystem = await inBoot(undefined);
      for (const file of files) {
        const bytes = await file.bytes();
        const opened = await fileSystem.open(file.name, { create: true });
        await opened.write(bytes, 0);
        // Fixtures of format 2 logs, which are sparse, omit the zeros at the end. The header has the file's length.
        if (!('deviceSize' in expected) && file.name.includes('.wil')) {
          await opened.truncate(Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(56, true)));
        }
        await opened.close();
      }
      return inBoot;
    }

    if ('deviceSize' in expected) {
      it('is read', async () => {
        const { deviceSize, totalBlocks, syncedBlocks, synced, dirty } = expected;
        const found = await inspectMetadata(await (await load())('any'), 'disk.raw', { size: deviceSize });
        expect(found).toMatchObject({ size: deviceSize, totalBlocks, syncedBlocks, synced, dirty });
      });
      return;
    }
    const { size, blockSize, totalBlocks, bootId, sameBoot, otherBoot } = expected;

    it('is read in another boot up to the last flush', async () => {
      const inBoot = await load();
      for (const other of ['another boot', undefined]) {
        const found = await inspectMetadata(await inBoot(other), 'disk.raw');
        expect(found).toEqual({ target: 'disk.raw', size, blockSize, totalBlocks, ...otherBoot });
      }
    });

    if (sameBoot !== undefined) {
      it('is read in its own boot with every acknowledged write', async () => {
        const found = await inspectMetadata(await (await load())(bootId), 'disk.raw');
        expect(found).toEqual({ target: 'disk.raw', size, blockSize, totalBlocks, ...sameBoot });
      });
    }
  });
}
