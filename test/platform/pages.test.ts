import { describe, expect, it } from 'vitest';
import { areWholePages, PAGE_BYTES, pageBuffer, releasePages } from '../../src/platform/pages.ts';

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

describe('page buffers', () => {
  /** Takes buffers until one is not on pages. Returns them. */
  function takeAll(): Uint8Array[] {
    const taken: Uint8Array[] = [];
    do taken.push(pageBuffer(2 ** 20));
    while (areWholePages(taken.at(-1)!));
    return taken;
  }

  it('share a few memories, and further ones begin anywhere', () => {
    const taken = takeAll();
    expect(taken.length).toBeGreaterThan(100);
    expect(new Set(taken.slice(0, -1).map(({ buffer }) => buffer)).size).toBeLessThanOrEqual(4);
    for (const [index, bytes] of taken.entries()) bytes.fill(index);
    expect(taken.every((bytes, index) => bytes[0] === index && bytes.at(-1) === index)).toBe(true);
    taken.forEach(releasePages);
    const again = takeAll();
    expect(again.length).toBe(taken.length);
    again.forEach(releasePages);
  });

  it('are zero when they are used again, and released once, by their owner', () => {
    const first = pageBuffer(PAGE_BYTES).fill(1);
    releasePages(first.subarray());
    const second = pageBuffer(PAGE_BYTES).fill(2);
    expect(first[0]).toBe(1);
    releasePages(first);
    const third = pageBuffer(PAGE_BYTES);
    expect([third.byteOffset, third.every((byte) => byte === 0)]).toEqual([first.byteOffset, true]);
    releasePages(first);
    const fourth = pageBuffer(PAGE_BYTES);
    expect(fourth.byteOffset).not.toBe(third.byteOffset);
    for (const bytes of [second, third, fourth, new Uint8Array(5)]) releasePages(bytes);
  });
});
