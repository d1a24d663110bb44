/** An HTTP server and its line, on a simulated clock. */

import type { HttpResponse, HttpTransport } from '../../src/sources/http/transport.ts';
import type { SimulatedClock } from '../../src/testing/index.ts';
import type { HttpAsk, Plan } from './http-faults.ts';

/** The line, which all answers share. */
const BYTES_PER_MS = 10;
const PIECE_BYTES = 8192;

/** Makes the transport of a source. Its requests are answered as `serve` says. */
export function simulatedServer(clock: SimulatedClock, serve: (ask: HttpAsk) => Plan): () => HttpTransport {
  let answers = 0;
  return () => ({
    close: () => undefined,
    request: async ({ url, method = 'GET', headers, signal }) => {
      const [, first, last] = /^bytes=(\d*)-(\d+)$/.exec(headers['range'] ?? '') ?? [];
      const ask = { method, path: url.pathname, start: Number(first), end: Number(last) + 1 };
      const plan = serve(ask);
      await clock.sleep(plan.delayMs, signal);
      if (plan.refused !== undefined)
        throw Object.assign(new Error(`connect: ${plan.refused}`), { code: plan.refused });
      if (plan.sent < 0) await clock.sleep(Number.POSITIVE_INFINITY, signal);
      let at = 0;
      const pull = async (): Promise<Uint8Array | undefined> => {
        signal.throwIfAborted();
        if (at >= plan.sent) {
          if (plan.ends === 'silence') await clock.sleep(Number.POSITIVE_INFINITY, signal);
          if (at === plan.body.length) return undefined;
          throw new Error(plan.ends === 'reset' ? 'read ECONNRESET' : 'the body ended early');
        }
        const { bytesPerSecond } = plan;
        const piece = plan.body.slice(at, Math.min(plan.sent, at + (bytesPerSecond ?? PIECE_BYTES)));
        answers++;
        try {
          await clock.sleep(bytesPerSecond === undefined ? (piece.length * answers) / BYTES_PER_MS : 1000, signal);
        } finally {
          answers--;
        }
        at += piece.length;
        return piece;
      };
      const response: HttpResponse = {
        status: plan.status,
        url,
        header: (name) => plan.headers[name],
        pull,
        cancel: () => undefined,
      };
      return response;
    },
  });
}
