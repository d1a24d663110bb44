/**
 * `node saved-pc.mjs IMAGE BIOS_FOLDER MARKER FILE`: starts a PC in v86 from IMAGE, and saves it to FILE, compressed by
 * gzip, when its screen shows MARKER. The page can resume the PC from there. Nothing may have been written to the disk
 * by then: the page resumes the PC beside the image as it is.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { V86 } from 'v86';
import { root } from './steps.mjs';

/** As that of the PC in src/web/pc-view.ts. */
const MEMORY_BYTES = 128 * 2 ** 20;
/** Only a safety net: it takes 10 to 40 s. */
const LIMIT_MS = 300_000;

/** @param {string} image @param {string} biosFolder @param {string} marker @returns {Promise<Uint8Array>} */
async function startedPc(image, biosFolder, marker) {
  const { v86Disk } = await import(join(root, 'dist', 'v86.js'));
  const fd = openSync(image, 'r');
  /** @type {(error: unknown) => void} */
  let onError = () => undefined;
  const failed = new Promise((_, reject) => {
    onError = reject;
  });
  const device = {
    size: fstatSync(fd).size,
    /** @param {Uint8Array} into @param {number} offset */
    read: async (into, offset) => void readSync(fd, into, 0, into.length, offset),
    write: async () => {
      throw new Error(`the PC wrote to its disk before "${marker}"`);
    },
    flush: async () => undefined,
  };
  const bytesOf = (/** @type {string} */ name) => {
    const bytes = readFileSync(join(biosFolder, name));
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  };
  const pc = new V86({
    wasm_path: join(root, 'node_modules', 'v86', 'build', 'v86.wasm'),
    bios: { buffer: bytesOf('bios.bin') },
    vga_bios: { buffer: bytesOf('vgabios-stdvga.bin') },
    hda: v86Disk(device, { onError }),
    memory_size: MEMORY_BYTES,
    disable_speaker: true,
    autostart: true,
  });
  const limit = setTimeout(() => onError(new Error(`no "${marker}" after ${LIMIT_MS / 1000} s`)), LIMIT_MS);
  try {
    await Promise.race([failed, hasShown(pc, marker)]);
    await pc.stop();
    return new Uint8Array(await pc.save_state());
  } finally {
    clearTimeout(limit);
    await pc.destroy();
    closeSync(fd);
  }
}

/** Resolves when the screen shows a text. @param {V86} pc @param {string} text @returns {Promise<void>} */
function hasShown(pc, text) {
  return new Promise((resolve) => {
    /** @type {Map<number, string>} */
    const rows = new Map();
    pc.add_listener('screen-put-char', (/** @type {[number, number, number]} */ [row, column, character]) => {
      const before = (rows.get(row) ?? '').padEnd(column);
      const line = before.slice(0, column) + String.fromCharCode(character) + before.slice(column + 1);
      rows.set(row, line);
      if (line.includes(text)) resolve();
    });
  });
}

const [image = '', biosFolder = '', marker = '', file = ''] = process.argv.slice(2);
writeFileSync(file, gzipSync(await startedPc(image, biosFolder, marker)));
process.exit(0);
