/** Answers of an HTTP server: status, headers and bodies, also of errors, redirects and S3. */

import { httpSource } from '../../../../src/sources/http/source.ts';
import type { HttpRequest, HttpResponse, HttpTransport } from '../../../../src/sources/http/transport.ts';
import { s3Source } from '../../../../src/sources/s3/source.ts';
import type { Source } from '../../../../src/sources/source.ts';
import { SimulatedClock } from '../../../../src/testing/index.ts';
import { checkSize, Fields, joined, onlyCodErrors, type Target, u8, u16, u32 } from '../target.ts';

/** Flags of the first byte. */
const [WHOLE_BODY, SAME_SOURCE, S3] = [1, 2, 4];
const PIECE_BYTES = 2 ** 14;
const MAX_BODY_BYTES = 2 ** 22;
const MAX_ANSWERS = 256;

/**
 * The answers of an input, in the order of the requests: status, lines of headers, text of the body, and how many zeros
 * follow. Requests after the last answer are refused.
 */
class Answers implements HttpTransport {
  readonly #fields: Fields;
  #left = MAX_ANSWERS;

  constructor(fields: Fields) {
    this.#fields = fields;
  }

  async request({ url, signal }: HttpRequest): Promise<HttpResponse> {
    signal.throwIfAborted();
    if (this.#fields.isAtEnd || this.#left-- === 0) throw new Error('connection refused');
    const status = this.#fields.u16() % 600;
    const headers = headersOf(Buffer.from(this.#fields.bytes(this.#fields.u16())).toString('latin1'));
    const text = this.#fields.bytes(this.#fields.u16());
    let zeros = this.#fields.u32() % MAX_BODY_BYTES;
    let isTextRead = text.length === 0;
    return {
      status,
      url,
      header: (name) => headers.get(name),
      pull: async () => {
        signal.throwIfAborted();
        if (!isTextRead) {
          isTextRead = true;
          return text;
        }
        if (zeros === 0) return undefined;
        const piece = new Uint8Array(Math.min(zeros, PIECE_BYTES));
        zeros -= piece.length;
        return piece;
      },
      cancel: () => undefined,
    };
  }

  close(): void {}
}

/** As `Headers` joins them. */
function headersOf(text: string): Map<string, string> {
  const headers = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, name, value] = /^([\w-]+): ?(.*)$/.exec(line) ?? [];
    if (name === undefined) continue;
    const before = headers.get(name.toLowerCase());
    headers.set(name.toLowerCase(), before === undefined ? value! : `${before}, ${value}`);
  }
  return headers;
}

async function run(input: Uint8Array): Promise<void> {
  const fields = new Fields(input);
  const flags = fields.u8();
  const clock = new SimulatedClock();
  const options = {
    transport: new Answers(fields),
    clock,
    random: () => 0,
    retry: { attempts: 3, maxDelayMs: 2000 },
    sameSource: (flags & SAME_SOURCE) !== 0,
  };
  const open = (): Promise<Source> =>
    (flags & S3) === 0
      ? httpSource('https://user:secret@example.org/disk.raw?sign=secret', {
          ...options,
          allowWholeBody: (flags & WHOLE_BODY) !== 0,
        })
      : s3Source({
          ...options,
          bucket: 'bucket',
          key: 'disk.raw',
          region: 'eu-central-1',
          credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
        });
  await clock.run(onlyCodErrors(() => use(open)));
}

async function use(open: () => Promise<Source>): Promise<void> {
  const source = await open();
  checkSize(source.size);
  try {
    const into = new Uint8Array(Math.min(5000, source.size));
    await onlyCodErrors(() => source.read(into, 0));
    await onlyCodErrors(() => source.read(into, source.size - into.length));
    const reads = [
      source.read(into.slice(), 0),
      source.read(into.slice(), Math.floor((source.size - into.length) / 2)),
    ];
    for (const settled of await Promise.allSettled(reads))
      if (settled.status === 'rejected') await onlyCodErrors(() => Promise.reject(settled.reason));
    let left = 2 ** 16;
    for await (const piece of source.stream!(0, Math.min(source.size, 2 ** 17))) if ((left -= piece.length) < 0) break;
  } finally {
    await source.close();
  }
}

function answer(status: number, headers: string, text = '', zeros = 0): Uint8Array {
  const [head, body] = [headers, text].map((each) => new TextEncoder().encode(each)) as [Uint8Array, Uint8Array];
  return joined(u16(status), u16(head.length), head, u16(body.length), body, u32(zeros));
}

function* seeds(): Iterable<Uint8Array> {
  const known = 'etag: "a"\nlast-modified: Mon, 30 Nov 2026 06:00:00 GMT\n';
  const opening = answer(206, `content-range: bytes 0-0/20000\ncontent-length: 1\n${known}`, 'x');
  const range = (start: number, end: number, more = ''): Uint8Array =>
    answer(
      206,
      `content-range: bytes ${start}-${end - 1}/20000\ncontent-length: ${end - start}\n${known}${more}`,
      '',
      end - start,
    );
  const reads = [range(0, 5000), range(15_000, 20_000), range(0, 5000), range(7500, 12_500), range(0, 20_000)];
  for (const flags of [0, WHOLE_BODY, SAME_SOURCE, S3]) yield joined(u8(flags), opening, ...reads);
  yield joined(u8(0), opening, range(0, 2000), range(2000, 5000), range(14_000, 20_000), ...reads.slice(2));
  yield joined(
    u8(WHOLE_BODY),
    ...Array.from({ length: 6 }, () => answer(200, `content-length: 20000\n${known}`, '', 20_000)),
  );
  yield joined(
    u8(0),
    answer(206, `content-range: bytes 0-0/*\n${known}`, 'x'),
    answer(200, 'content-length: 20000\n'),
    ...reads,
  );
  yield joined(
    u8(0),
    answer(206, `content-range: bytes 0-0/*\n${known}`, 'x'),
    answer(405, ''),
    range(19_999, 20_000),
    ...reads,
  );
  yield joined(
    u8(0),
    answer(302, 'location: https://mirror.example.org/x\n'),
    opening,
    answer(403, ''),
    opening,
    ...reads,
  );
  yield joined(
    u8(0),
    answer(503, 'retry-after: 3\n', '<html><title>Busy &amp; closed</title>'),
    opening,
    answer(429, 'retry-after: Mon, 30 Nov 2026 06:00:09 GMT\n'),
    ...reads,
  );
  yield joined(u8(0), answer(404, 'content-type: text/html\n', '<html><p>No such file</p>'));
  yield joined(u8(0), answer(500, '', '{"error": {"status": "BAD", "message": "it is \\u0041 \\n"}}'));
  yield joined(
    u8(S3),
    answer(
      301,
      'x-amz-bucket-region: us-west-2\n',
      '<Error><Code>PermanentRedirect</Code><Message>Use &#x41; another</Message><Endpoint>b.s3</Endpoint></Error>',
    ),
    opening,
    ...reads,
  );
  yield joined(u8(S3), answer(400, '', '<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>'), opening);
  yield joined(
    u8(S3),
    answer(403, 'date: Mon, 30 Nov 2026 06:00:00 GMT\n', '<Error><Code>RequestTimeTooSkewed</Code></Error>'),
    opening,
  );
  yield joined(u8(0), answer(416, 'content-range: bytes */0\n'));
  yield joined(u8(0), answer(200, 'content-encoding: gzip\ncontent-length: 9\n'));
  yield joined(
    u8(SAME_SOURCE),
    opening,
    answer(
      206,
      'content-range: bytes 0-4999/20000\netag: "b"\nlast-modified: Mon, 30 Nov 2026 06:00:00 GMT\n',
      '',
      5000,
    ),
  );
  yield joined(u8(0), opening, answer(206, 'content-range: bytes 0-4999/20000\netag: W/"b"\n', '', 5000));
  yield joined(u8(0), opening, answer(206, 'content-range: bytes 0-4999/30000\n', '', 5000));
  yield joined(u8(0), opening, answer(416, 'content-range: bytes */10\n'));
}

export const http: Target = { run, seeds, maxBytes: 2 ** 14 };
