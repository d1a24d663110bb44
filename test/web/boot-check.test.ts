/** Whether anything on a disk starts in a PC with a BIOS, and from which drive. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkBoot } from '../../src/web/boot-check.ts';
import { describeWith, toolPath } from '../support/tools.ts';
import { arrayBytes } from '../support/volumes.ts';

const MIB = 2 ** 20;
const FLOPPY = 1440 * 1024;
const CODE = [0xfa, 0x31, 0xc0];
/** From the package grub-rescue-pc. */
const GRUB_CD = '/usr/lib/grub-rescue/grub-rescue-cdrom.iso';

function disk(size: number, parts: readonly (readonly [number, readonly number[] | string])[] = []): Uint8Array {
  const bytes = new Uint8Array(size);
  for (const [offset, part] of parts)
    bytes.set(typeof part === 'string' ? new TextEncoder().encode(part) : part, offset);
  return bytes;
}

const check = (bytes: Uint8Array): ReturnType<typeof checkBoot> => checkBoot(arrayBytes(bytes));

test('a sector with code and signature starts from a hard disk, or from a floppy of its size', async () => {
  const sector = [
    [0, CODE],
    [510, [0x55, 0xaa]],
  ] as const;
  expect(await check(disk(MIB, sector))).toEqual({ drive: 'hda', problem: undefined });
  expect(await check(disk(FLOPPY, sector))).toEqual({ drive: 'fda', problem: undefined });
});

test.each([
  ['nothing', disk(MIB), 'no boot signature'],
  ['no byte', disk(0), 'smaller than one sector'],
  ['code without a signature', disk(MIB, [[0, CODE]]), 'no boot signature'],
  ['a signature without code', disk(MIB, [[510, [0x55, 0xaa]]]), 'no boot code'],
  [
    'an EFI partition',
    disk(MIB, [
      [446, [0, 0, 2, 0, 0xef, 0, 0, 0, 1, 0, 0, 0, 9]],
      [510, [0x55, 0xaa]],
    ]),
    'EFI only',
  ],
])('a disk with %s does not start', async (_, bytes, problem) => {
  expect((await check(bytes)).problem).toContain(problem);
});

const DESCRIPTOR = [16 * 2048 + 1, 'CD001'] as const;
const EL_TORITO = [17 * 2048, '\0CD001\u0001EL TORITO SPECIFICATION'] as const;
const CATALOGUE = [17 * 2048 + 0x47, [20]] as const;

test.each([
  ['without El Torito', [DESCRIPTOR], 'no El Torito'],
  ['for EFI', [DESCRIPTOR, EL_TORITO, CATALOGUE, [20 * 2048, [1, 0xef]], [20 * 2048 + 32, [0x88]]], 'EFI only'],
  ['without an entry', [DESCRIPTOR, EL_TORITO, CATALOGUE, [20 * 2048, [1, 0]]], 'no entry for a PC'],
  ['cut', [DESCRIPTOR, EL_TORITO, [17 * 2048 + 0x47, [255, 255, 255, 255]]], 'beyond its end'],
] as const)('a CD %s does not start', async (_, parts, problem) => {
  const found = await check(disk(MIB, parts));
  expect(found.drive).toBe('cdrom');
  expect(found.problem).toContain(problem);
});

describeWith([GRUB_CD], 'the CD of grub-mkrescue', () => {
  test('starts as a CD', async () => {
    expect(await check(readFileSync(GRUB_CD))).toEqual({ drive: 'cdrom', problem: undefined });
  });
});

describeWith(['mkfs.fat'], 'a volume of mkfs.fat', () => {
  test('only says that it does not boot', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cod-boot-'));
    const path = join(folder, 'fat');
    execFileSync(toolPath('mkfs.fat')!, ['-C', path, '1440'], { stdio: 'ignore' });
    expect(await check(readFileSync(path))).toEqual({
      drive: 'fda',
      problem: 'The first sector only says that the disk is not bootable.',
    });
    rmSync(folder, { recursive: true });
  });
});
