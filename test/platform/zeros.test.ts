import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

describe.each(['Node', 'a browser'])('isZero in %s', (platform) => {
  let isZero: (bytes: Uint8Array) => boolean;
  beforeAll(async () => {
    vi.resetModules();
    if (platform !== 'Node') vi.stubGlobal('Buffer', undefined);
    ({ isZero } = await import('../../src/platform/zeros.ts'));
    vi.unstubAllGlobals();
  });
  afterAll(() => vi.resetModules());

  it('is true for zeros of any length and alignment between other bytes', () => {
    for (let start = 0; start < 9; start++) {
      for (let length = 0; length <= 100; length++) {
        const around = new Uint8Array(start + length + 9).fill(255);
        const bytes = around.subarray(start, start + length).fill(0);
        expect(isZero(bytes), `${length} bytes from ${start} on`).toBe(true);
      }
    }
  });

  it('finds a nonzero byte at any place, for any length and alignment', () => {
    const wrong: string[] = [];
    for (let start = 0; start < 5; start++) {
      for (let length = 1; length <= 80; length++) {
        const bytes = new Uint8Array(start + length).subarray(start);
        for (let at = 0; at < length; at++) {
          for (const value of [1, 128]) {
            bytes[at] = value;
            if (isZero(bytes)) wrong.push(`byte ${at} of ${length} from ${start} on`);
            bytes[at] = 0;
          }
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it('finds a single set bit anywhere in a long run', () => {
    const bytes = new Uint8Array(65_536);
    expect(isZero(bytes)).toBe(true);
    for (let at = 0; at < bytes.length; at += 97) {
      bytes[at] = 1 << (at % 8);
      expect(isZero(bytes), `byte ${at}`).toBe(false);
      bytes[at] = 0;
    }
  });
});
