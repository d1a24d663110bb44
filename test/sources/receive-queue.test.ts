import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { areWholePages, PAGE_BYTES } from '../../src/platform/pages.ts';
import { ReceiveQueue } from '../../src/sources/receive-queue.ts';
import { expectBytes } from '../support/bytes.ts';

const idle = { stop: () => {}, go: () => {} };

function body(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) & 0xff);
}

describe('ReceiveQueue', () => {
  it('hands out what has come, in order, whoever is faster', async () => {
    const scenario = fc.record({
      chunks: fc.array(fc.integer({ min: 1, max: 40_000 }), { minLength: 1, maxLength: 30 }),
      /** After which chunks the consumer has its turn. */
      pulls: fc.array(fc.boolean(), { minLength: 30, maxLength: 30 }),
      pieceBytes: fc.constantFrom(undefined, PAGE_BYTES, 4 * PAGE_BYTES, 16 * PAGE_BYTES),
      isLengthKnown: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(scenario, async ({ chunks, pulls, pieceBytes, isLengthKnown }) => {
        const bytes = body(chunks.reduce((sum, length) => sum + length, 0));
        const queue = new ReceiveQueue(idle, { expectedBytes: isLengthKnown ? bytes.length : undefined, pieceBytes });
        const found = new Uint8Array(bytes.length);
        let at = 0;
        const take = (piece: Uint8Array | undefined) => {
          found.set(piece!, at);
          at += piece!.length;
        };
        let sent = 0;
        for (const [index, length] of chunks.entries()) {
          // A chunk is the socket's own again after `push`.
          const chunk = bytes.slice(sent, sent + length);
          queue.push(chunk);
          chunk.fill(0xee);
          sent += length;
          if (pulls[index] && at < sent) take(await queue.pull());
        }
        queue.end();
        while (at < bytes.length) take(await queue.pull());
        expect(await queue.pull()).toBeUndefined();
        expectBytes(found, bytes);
      }),
      { numRuns: 300 },
    );
  });

  it('pieces are whole pages of the body, out of pages of memory, as long as more follows', async () => {
    const bytes = body(20 * PAGE_BYTES + 100);
    const queue = new ReceiveQueue(idle, { expectedBytes: bytes.length, pieceBytes: 8 * PAGE_BYTES });
    queue.push(bytes.subarray(0, 2 * PAGE_BYTES + 1));
    const first = await queue.pull();
    expect([first!.length, areWholePages(first!)]).toEqual([2 * PAGE_BYTES, true]);
    queue.push(bytes.subarray(2 * PAGE_BYTES + 1));
    queue.end();
    const lengths: number[] = [];
    for (let piece = await queue.pull(); piece !== undefined; piece = await queue.pull()) lengths.push(piece.length);
    expect(lengths).toEqual([8 * PAGE_BYTES, 8 * PAGE_BYTES, 2 * PAGE_BYTES + 100]);
  });

  it('does not keep back what is less than a page, and is on pages again after it', async () => {
    const bytes = body(16 * PAGE_BYTES);
    const queue = new ReceiveQueue(idle, { expectedBytes: bytes.length, pieceBytes: 4 * PAGE_BYTES });
    queue.push(bytes.subarray(0, 300));
    expect((await queue.pull())!.length).toBe(300);
    queue.push(bytes.subarray(300));
    expect((await queue.pull())!.length).toBe(4 * PAGE_BYTES - 300);
    const next = await queue.pull();
    expect([next!.length, areWholePages(next!)]).toEqual([4 * PAGE_BYTES, true]);
    expectBytes(next!, bytes.subarray(4 * PAGE_BYTES, 8 * PAGE_BYTES));
  });

  it('stops its socket at two pieces, and lets it go on at one', async () => {
    const calls: string[] = [];
    const queue = new ReceiveQueue(
      { stop: () => calls.push('stop'), go: () => calls.push('go') },
      { pieceBytes: PAGE_BYTES },
    );
    queue.push(body(PAGE_BYTES));
    expect(calls).toEqual([]);
    queue.push(body(PAGE_BYTES));
    expect(calls).toEqual(['stop']);
    await queue.pull();
    expect(calls).toEqual(['stop', 'go']);
  });
});
