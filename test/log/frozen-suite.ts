/**
 * States that were once written stay readable: the states of format 1 by datto/copyondemand (test/fixtures/golden), and
 * the states of format 2 (test/fixtures/format2/README.md).
 */

import { describe, expect, it } from 'vitest';
import { HEADER_BYTES } from '../../src/core/layout.ts';
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
      /** The bytes of the target that unfirm records name, as runs of equal bytes. Zeros elsewhere. */
      target: readonly (readonly [offset: number, length: number, value: number])[];
      withTarget: Reading;
      withoutTarget: Reading;
    })
  | (Pick<Inspection, 'totalBlocks' | 'syncedBlocks' | 'synced' | 'dirty'> & { deviceSize: number });

const CELL_BYTES = 4096;

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
        // Fixtures of format 2 logs, which are sparse, omit the zeros at the end. The header has the file's length. A
        // file that waits for its first log has no header.
        if (!('deviceSize' in expected) && file.name.includes('.wil') && bytes.length >= HEADER_BYTES) {
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
        // Format 1 does not tell users' bytes from the source's.
        expect(found.modifiedBlocks).toBe(syncedBlocks + dirty.length);
      });
      return;
    }
    const { size, blockSize, totalBlocks, target, withTarget, withoutTarget } = expected;

    /** Makes the target with these runs, as long as the last of their cells. */
    async function writeTarget(fileSystem: FileSystem, runs: typeof target): Promise<void> {
      const opened = await fileSystem.open('disk.raw', { create: true });
      for (const [offset, length, value] of runs) await opened.write(new Uint8Array(length).fill(value), offset);
      const [offset, length] = target.at(-1)!;
      await opened.truncate(Math.min(size, Math.ceil((offset + length) / CELL_BYTES) * CELL_BYTES));
      await opened.close();
    }

    it('is read up to the last flush if the target is missing, in any boot', async () => {
      const inBoot = await load();
      for (const bootId of ['a boot', undefined]) {
        const found = await inspectMetadata(await inBoot(bootId), 'disk.raw');
        expect(found).toEqual({ target: 'disk.raw', size, blockSize, totalBlocks, ...withoutTarget });
      }
    });

    if (target.length === 0) return;

    it('is read with every acknowledged write that the target holds, in any boot', async () => {
      const inBoot = await load();
      await writeTarget(await inBoot(undefined), target);
      for (const bootId of ['a boot', undefined]) {
        const found = await inspectMetadata(await inBoot(bootId), 'disk.raw');
        expect(found).toEqual({ target: 'disk.raw', size, blockSize, totalBlocks, ...withTarget });
      }
    });

    it('is read up to the last flush if the target lost the rest', async () => {
      const inBoot = await load();
      await writeTarget(await inBoot(undefined), []);
      const found = await inspectMetadata(await inBoot('a boot'), 'disk.raw');
      expect(found).toEqual({ target: 'disk.raw', size, blockSize, totalBlocks, ...withoutTarget });
    });
  });
}
