/** What an HTTP server does wrong, as a plan that a simulated server and a real one carry out. */

import type { Random } from '../../src/testing/index.ts';

/** The faults. The copy gets over the silent ones without a failed request. */
export const HTTP_FAULTS = {
  refused: 'told',
  'no such host': 'told',
  'reset before the head': 'told',
  'reset in the body': 'told',
  'short body': 'told',
  '500': 'told',
  '503 with Retry-After': 'told',
  '429': 'told',
  '404': 'told',
  '410': 'told',
  '403': 'told',
  '401': 'told',
  'silence before the head': 'told',
  'silence in the body': 'told',
  drip: 'told',
  'wrong range': 'told',
  'malformed range': 'told',
  'no size': 'silent',
  'no size anywhere': 'silent',
  'another image': 'told',
  'another size': 'told',
  'another ETag each time': 'told',
  compressed: 'told',
  'no ranges': 'told',
  'maintenance page': 'told',
  'redirect loop': 'told',
  'redirect to a mirror without the file': 'told',
  'fewer bytes': 'silent',
  'larger slices': 'silent',
  'equal headers twice': 'silent',
  slow: 'silent',
} as const;

export type HttpFault = keyof typeof HTTP_FAULTS;

/** A request for the bytes [start, end). */
export interface HttpAsk {
  readonly method: string;
  readonly path: string;
  readonly start: number;
  readonly end: number;
}

/** The file on the server. */
export interface ServedImage {
  readonly bytes: Uint8Array;
  readonly etag: string;
}

/** An answer, right or wrong. */
export interface Plan {
  /** There is no connection: an error of the system. */
  readonly refused?: 'ECONNREFUSED' | 'ENOTFOUND' | 'ECONNRESET';
  readonly delayMs: number;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** Bytes of the body that are sent before `ends`. Below 0: not even the head. */
  readonly sent: number;
  readonly ends: 'end' | 'reset' | 'silence';
  /** Sends this many bytes a second. */
  readonly bytesPerSecond?: number;
}

const EMPTY = new Uint8Array(0);
/** The redirect of a mirror. The mirror lacks the file. */
const MIRROR = '/mirror';

/** Returns what the server does about a request. */
export function planOf(fault: HttpFault | undefined, ask: HttpAsk, { bytes, etag }: ServedImage, random: Random): Plan {
  const size = bytes.length;
  const { start, end } = ask;
  const ranged = (from: number, to: number, total: number | string = size): Plan => ({
    delayMs: 20,
    status: 206,
    headers: {
      etag,
      'last-modified': 'Sat, 01 Nov 2025 00:00:00 GMT',
      'content-range': `bytes ${from}-${to - 1}/${total}`,
      'content-length': String(to - from),
    },
    body: bytes.subarray(from, to),
    sent: to - from,
    ends: 'end',
  });
  const whole = (body: Uint8Array, headers: Record<string, string> = {}): Plan => ({
    ...ranged(0, size),
    status: 200,
    headers: { etag, 'content-length': String(body.length), ...headers },
    body,
    sent: body.length,
  });
  const refusal = (status: number, headers: Record<string, string> = {}): Plan => ({
    ...ranged(0, size),
    status,
    headers: { 'content-length': '0', ...headers },
    body: EMPTY,
    sent: 0,
  });
  const right = ask.method === 'HEAD' ? { ...whole(bytes), body: EMPTY, sent: 0 } : ranged(start, end);
  const part = random.below(right.sent + 1);
  if (ask.path === MIRROR) return refusal(404);
  switch (fault) {
    case undefined:
      return right;
    case 'refused':
      return { ...right, refused: 'ECONNREFUSED' };
    case 'no such host':
      return { ...right, refused: 'ENOTFOUND' };
    case 'reset before the head':
      return { ...right, refused: 'ECONNRESET' };
    case 'reset in the body':
    case 'short body':
      return { ...right, sent: Math.min(part, right.sent - 1), ends: fault === 'short body' ? 'end' : 'reset' };
    case '500':
    case '404':
    case '410':
    case '403':
    case '401':
      return refusal(Number(fault));
    case '503 with Retry-After':
      return refusal(503, { 'retry-after': String(1 + random.below(90)) });
    case '429':
      return refusal(429);
    case 'silence before the head':
      return { ...right, sent: -1, ends: 'silence' };
    case 'silence in the body':
      return { ...right, sent: Math.min(part, right.sent - 1), ends: 'silence' };
    case 'drip':
      return { ...right, bytesPerSecond: 50 };
    case 'wrong range':
      return start === 0 ? ranged(1, Math.min(size, end + 1)) : ranged(0, Math.min(size, end - start));
    case 'malformed range':
      return { ...right, headers: { ...right.headers, 'content-range': `bytes ${end}-${start}/${size}` } };
    case 'no size':
      return ask.method === 'HEAD' ? right : ranged(start, end, '*');
    case 'no size anywhere':
      return ask.method === 'HEAD' ? refusal(501) : ranged(start, end, '*');
    case 'another image':
      return {
        ...right,
        headers: { ...right.headers, etag: '"another"' },
        body: right.body.map((byte) => ~byte),
      };
    case 'another size': {
      const longer = { ...right.headers, etag: '"longer"', 'content-range': `bytes ${start}-${end - 1}/${size + 1}` };
      return { ...right, headers: longer, body: right.body.map((byte) => ~byte) };
    }
    case 'another ETag each time':
      return { ...right, headers: { ...right.headers, etag: `"${random.below(2 ** 31)}"` } };
    case 'compressed':
      return { ...right, headers: { ...right.headers, 'content-encoding': 'gzip' } };
    case 'no ranges':
      return whole(bytes);
    case 'maintenance page':
      return whole(new TextEncoder().encode('<html>back soon</html>'), { 'content-type': 'text/html', etag: '"page"' });
    case 'redirect loop':
      return refusal(302, { location: `/${random.below(1000)}` });
    case 'redirect to a mirror without the file':
      return refusal(302, { location: MIRROR });
    case 'fewer bytes':
      return ask.method === 'HEAD' ? right : ranged(start, Math.min(end, start + 1 + random.below(20_000)));
    case 'larger slices':
      return ask.method === 'HEAD' ? right : ranged(start - (start % 32_768), Math.min(size, end + (-end & 32_767)));
    case 'equal headers twice':
      return ask.method === 'HEAD'
        ? right
        : { ...right, headers: { ...right.headers, 'content-range': twice(right.headers['content-range']!) } };
    case 'slow':
      return { ...right, delayMs: 5000 };
  }
}

function twice(value: string): string {
  return `${value}, ${value}`;
}
