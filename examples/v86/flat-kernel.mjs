/**
 * flat-kernel.mjs FROM TO: unpacks a Linux kernel for i386 that unpacks itself, so that an emulated processor need not
 * do it. It takes a third of the time until the kernel's first message.
 *
 * A bzImage is a real-mode part, the code that unpacks, and a compressed ELF file. In TO the contents of that file
 * follow the real-mode part, as they lie in memory, and the boot loader starts them at once. Offsets are those of the
 * kernel's Documentation/x86/boot.rst. Requires xz, with which Debian's kernels are compressed.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';

const SECTOR = 512;
const PAGE = 4096;
const SETUP_SECTORS = 0x1f1;
const SIZE_IN_PARAGRAPHS = 0x1f4;
const IS_RELOCATABLE = 0x234;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const PREFERRED_ADDRESS = 0x258;
const MEMORY_BYTES = 0x260;
const PT_LOAD = 1;

const [from = '', to = ''] = process.argv.slice(2);
const image = readFileSync(from);
const setup = image.subarray(0, ((image[SETUP_SECTORS] || 4) + 1) * SECTOR);
const start = setup.length + image.readUInt32LE(PAYLOAD_OFFSET);
// The last four bytes are the unpacked size.
const payload = image.subarray(start, start + image.readUInt32LE(PAYLOAD_LENGTH) - 4);
const elf = execFileSync('xz', ['--decompress', '--stdout'], { input: payload, maxBuffer: 2 ** 28 });

const headers = elf.readUInt32LE(28);
const segments = Array.from({ length: elf.readUInt16LE(44) }, (_, index) => headers + index * elf.readUInt16LE(42))
  .filter((at) => elf.readUInt32LE(at) === PT_LOAD)
  .map((at) => ({
    offset: elf.readUInt32LE(at + 4),
    address: elf.readUInt32LE(at + 12),
    bytes: elf.readUInt32LE(at + 16),
    memoryBytes: elf.readUInt32LE(at + 20),
  }));
const base = Math.min(...segments.map(({ address }) => address));
if (elf.readUInt32LE(24) !== base) throw new Error(`${from} does not begin at its lowest address`);
const flat = Buffer.alloc(Math.max(...segments.map(({ address, bytes }) => address + bytes)) - base);
for (const { offset, address, bytes } of segments) elf.copy(flat, address - base, offset, offset + bytes);
const end = Math.max(...segments.map(({ address, memoryBytes }) => address + memoryBytes));

setup.writeUInt32LE(Math.ceil(flat.length / 16), SIZE_IN_PARAGRAPHS);
// Only then the boot loader puts it at the preferred address.
setup[IS_RELOCATABLE] = 1;
setup.writeBigUInt64LE(BigInt(base), PREFERRED_ADDRESS);
setup.writeUInt32LE(Math.ceil((end - base) / PAGE) * PAGE, MEMORY_BYTES);
setup.writeUInt32LE(0, PAYLOAD_OFFSET);
setup.writeUInt32LE(0, PAYLOAD_LENGTH);
writeFileSync(to, Buffer.concat([setup, flat]));
