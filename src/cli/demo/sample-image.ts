/** Makes a disk image for the demo: an ext4 file system if mke2fs exists, otherwise a pattern with text in it. */

import { execFile } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

const IMAGE_BYTES = 256 * 2 ** 20;
const MUSIC_BYTES = 24 * 2 ** 20;
const SEARCH_BYTES = 2 ** 20;

const README_LINE = 'This line is in a file of the file system in the image on the server.';
const DIARY_LINE = 'Today: no entry yet. The demo writes here while the image is copied.';

/**
 * Offset of the backup of the ext4 superblock: block group 1, blocks of 4096 bytes (ext4 disk layout, sparse_super).
 */
const BACKUP_SUPERBLOCK_OFFSET = 32_768 * 4096;
const SUPERBLOCK_MAGIC_AT = 56;

/** A place in the image that the demo reads and shows. */
export interface Landmark {
  readonly what: string;
  readonly offset: number;
  readonly length: number;
  /** Describes the bytes that were read. Throws if they are not the expected ones. */
  readonly show: (bytes: Uint8Array) => string;
}

/** An image, and the places in it to read. */
export interface SampleImage {
  readonly path: string;
  readonly size: number;
  readonly kind: string;
  readonly landmarks: readonly Landmark[];
  /** A line of text that may be overwritten with a line of the same length. */
  readonly diary: { readonly what: string; readonly offset: number; readonly length: number };
}

/** Makes an image in `directory`. */
export async function makeSampleImage(directory: string, signal: AbortSignal): Promise<SampleImage> {
  const path = join(directory, 'disk.raw');
  const made = await makeExt4(directory, path, signal).then(
    () => true,
    (error: unknown) => {
      signal.throwIfAborted();
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
      throw error;
    },
  );
  if (!made) await makePattern(path);
  const [readme, diary] = [await find(path, README_LINE), await find(path, DIARY_LINE)];
  const landmarks = [textAt(made ? 'README.txt' : 'some text', readme, README_LINE)];
  // The machine's mke2fs.conf may configure fewer backups.
  if (made && (await isThere(path, backupSuperblock))) landmarks.unshift(backupSuperblock);
  return {
    path,
    size: IMAGE_BYTES,
    kind: made ? 'an ext4 file system, made by mke2fs' : 'a pattern with text in it, because mke2fs is not installed',
    landmarks,
    diary: { what: made ? 'diary.txt' : 'other text', offset: diary, length: DIARY_LINE.length },
  };
}

async function makeExt4(directory: string, path: string, signal: AbortSignal): Promise<void> {
  const content = join(directory, 'content');
  await mkdir(content);
  await writeFile(join(content, 'README.txt'), `${README_LINE}\n`);
  await writeFile(join(content, 'diary.txt'), `${DIARY_LINE}\n`);
  await writeFile(join(content, 'music.bin'), randomFillSync(Buffer.allocUnsafeSlow(MUSIC_BYTES)));
  const image = await open(path, 'wx');
  await image.truncate(IMAGE_BYTES);
  await image.close();
  // Distributions install mke2fs outside the PATH of ordinary users.
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
  try {
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', '-L', 'far-away', '-d', content, path], {
      env,
      signal,
    });
  } catch (error) {
    await rm(path);
    throw error;
  } finally {
    await rm(content, { recursive: true });
  }
}

async function makePattern(path: string): Promise<void> {
  const image = await open(path, 'wx');
  try {
    await image.truncate(IMAGE_BYTES);
    await image.write(randomFillSync(Buffer.allocUnsafeSlow(MUSIC_BYTES)), 0, MUSIC_BYTES, IMAGE_BYTES / 8);
    await image.write(`${README_LINE}\n`, IMAGE_BYTES / 2);
    await image.write(`${DIARY_LINE}\n`, IMAGE_BYTES / 2 + 4096);
  } finally {
    await image.close();
  }
}

const backupSuperblock: Landmark = {
  what: "ext4's backup superblock",
  offset: BACKUP_SUPERBLOCK_OFFSET,
  length: 1024,
  show: (bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const magic = view.getUint16(SUPERBLOCK_MAGIC_AT, true);
    if (magic !== 0xef53) throw new Error(`the magic number of the superblock is 0x${magic.toString(16)}, not 0xef53`);
    return `magic 0x${magic.toString(16)}, ${view.getUint32(4, true)} blocks`;
  },
};

function textAt(what: string, offset: number, text: string): Landmark {
  return {
    what,
    offset,
    length: text.length,
    show: (bytes) => {
      const found = new TextDecoder().decode(bytes);
      if (found !== text) throw new Error(`${what} is ${JSON.stringify(found)}, not ${JSON.stringify(text)}`);
      return `“${found}”`;
    },
  };
}

async function isThere(path: string, { offset, length, show }: Landmark): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const bytes = new Uint8Array(length);
    await file.read(bytes, 0, length, offset);
    show(bytes);
    return true;
  } catch {
    return false;
  } finally {
    await file.close();
  }
}

/** Returns the offset of `text` in the file. */
async function find(path: string, text: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    // Pieces overlap by the length of the text, so that a text across two pieces is found.
    const buffer = Buffer.allocUnsafeSlow(SEARCH_BYTES + text.length);
    for (let at = 0; at < IMAGE_BYTES; at += SEARCH_BYTES) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      const index = buffer.subarray(0, bytesRead).indexOf(text);
      if (index >= 0) return at + index;
    }
    throw new Error(`the sample image does not contain ${JSON.stringify(text)}`);
  } finally {
    await file.close();
  }
}
