import { describe, expect, it } from 'vitest';
import { areWholePages, PAGE_BYTES, pageBuffer } from '../../src/platform/pages.ts';

describe('pageBuffer', () => {
  it.each([0, 1, PAGE_BYTES, 65_536, 65_537, 2 ** 21])('has %i bytes of zeros', (length) => {
    const bytes = pageBuffer(length);
    expect(bytes.length).toBe(length);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
  });
});

describe('areWholePages', () => {
  const pages = pageBuffer(4 * PAGE_BYTES);

  it.each([
    ['a whole page buffer', pages, true],
    ['some pages of a page buffer', pages.subarray(PAGE_BYTES, 3 * PAGE_BYTES), true],
    ['some pages of a page buffer, as a Buffer', Buffer.from(pages.buffer, PAGE_BYTES, PAGE_BYTES), true],
    ['bytes that begin within a page', pages.subarray(1, PAGE_BYTES + 1), false],
    ['bytes that end within a page', pages.subarray(0, PAGE_BYTES + 1), false],
    ['other memory', new Uint8Array(4 * PAGE_BYTES), false],
    ['memory of another WebAssembly module', new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer), false],
  ])('%s: %#', (_, bytes, expected) => {
    expect(areWholePages(bytes)).toBe(expected);
  });
});
