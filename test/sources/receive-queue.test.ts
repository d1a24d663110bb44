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
  it('releases the page buffers of all pieces, the one in use too', async () => {
    const offsets = new Set<number>();
    for (let round = 0; round < 10; round++) {
      const queue = new ReceiveQueue(idle, { pieceBytes: PAGE_BYTES });
      queue.push(body(3 * PAGE_BYTES));
      for (let pull = 0; pull < 2; pull++) offsets.add((await queue.pull())!.byteOffset);
      if (round % 2 === 0) queue.abort(new Error('no longer needed'));
      queue.release();
    }
    expect(offsets.size).toBeLessThanOrEqual(3);
  });

  it('returns the received bytes in order, whether producer or consumer is faster', async () => {
    const scenario = fc.record({
      chunks: fc.array(fc.integer({ min: 1, max: 40_000 }), { minLength: 1, maxLength: 30 }),
      /** Whether the consumer pulls after a chunk. */
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
          // After `push`, the socket may reuse the chunk.
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
        queue.release();
      }),
      { numRuns: 300 },
    );
  });

  it('returns whole pages of the body in page-aligned memory while more bytes follow', async () => {
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

  it('returns less than a page without delay, and is page-aligned again afterwards', async () => {
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

  it('pauses its socket at two pieces, and resumes it at one', async () => {
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
