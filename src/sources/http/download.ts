/** One resource over HTTP, and downloads from it that resume where they broke. */

import { withSignal } from '../../async/with-signal.ts';
import { CodError, isCodError } from '../../errors.ts';
import type { Clock } from '../../platform/clock.ts';
import { type Backoff, PassingError, type Retries, type StallLimits } from '../retry.ts';
import type { InternalStreamOptions } from '../source.ts';
import { StallWatch } from '../stall-watch.ts';
import { Asked, checkAnswer, isUsable, type Known, readOpening, readTotal, refusal, type Slice } from './answer.ts';
import { readErrorBody } from './error-body.ts';
import { Hedging } from './hedging.ts';
import type { HttpLocation, Located } from './location.ts';
import type { HttpResponse } from './transport.ts';

const ATTEMPTS_OPENING = 5;
const ATTEMPTS = 20;
/** Of a longer first response, the rest is not read to keep the connection. */
const MAX_DRAINED_BYTES = 2 ** 16;
/** Aborts whatever is left of a request that is done. Shared, since each new error costs a stack trace. */
const ENDED = new Error('the request is done');
/** Aborts a request that makes room for another one. */
const GIVEN_WAY = new Error('the request gave way');

export interface ResourceOptions {
  readonly allowWholeBody: boolean;
  readonly sameSource: boolean;
  readonly limits: Required<StallLimits>;
  readonly clock: Clock;
  readonly retries: Retries;
}

/** The resource: how it is requested, and what is known of it. */
export class Resource {
  readonly location: HttpLocation;
  readonly options: ResourceOptions;
  readonly hedging: Hedging = new Hedging();
  known: Known = { size: 0, etag: '', modified: '' };
  #explaining: Promise<CodError> | undefined;

  constructor(location: HttpLocation, options: ResourceOptions) {
    this.location = location;
    this.options = options;
  }

  async open(signal: AbortSignal | undefined): Promise<Known> {
    const asked = new Asked(this.location, 0, 1);
    const backoff = this.options.retries.backoff(asked.what, ATTEMPTS_OPENING);
    for (;;) {
      signal?.throwIfAborted();
      const attempt = new Attempt(this, asked);
      try {
        return (this.known = await this.#open(attempt, signal));
      } catch (error) {
        attempt.failed();
        await backoff.wait(error, signal);
      }
    }
  }

  async #open(attempt: Attempt, signal: AbortSignal | undefined): Promise<Known> {
    const { asked } = attempt;
    const opening = await attempt.during(signal, async () => {
      const response = await attempt.ask();
      const read = readOpening(response, asked, this.options.allowWholeBody);
      // The byte is read so that the connection can be kept. A whole body is not read.
      if (response.status === 206) await attempt.drain(MAX_DRAINED_BYTES);
      attempt.accepted();
      return read;
    });
    return { ...opening, size: opening.size ?? (await this.#total(asked, signal)) };
  }

  /** Asks for the total size, which the first response did not tell. */
  async #total(asked: Asked, signal: AbortSignal | undefined): Promise<number> {
    // A URL that is signed for GET refuses HEAD.
    for (const how of [{ method: 'HEAD' }, { range: 'bytes=-1' }] as const) {
      const attempt = new Attempt(this, asked);
      try {
        const size = await attempt.during(signal, async () => readTotal(await attempt.ask(how)));
        if (size !== undefined) return size;
      } catch (error) {
        if (!(error instanceof CodError)) throw error;
      }
    }
    const why = 'the server does not tell the size, neither in Content-Range nor by HEAD';
    throw new CodError('COD_SOURCE_IO', `${asked.what}: ${why}`);
  }

  /**
   * Returns the error for a response whose ETag alone is another than at opening: asks once more, and says so if the
   * server sends another ETag with each answer. Such a server names nothing.
   */
  explained(error: CodError): Promise<CodError> {
    this.#explaining ??= this.#explained(error).finally(() => {
      this.#explaining = undefined;
    });
    return this.#explaining;
  }

  async #explained(error: CodError): Promise<CodError> {
    const attempt = new Attempt(this, new Asked(this.location, 0, 1));
    try {
      const etag = await attempt.during(undefined, async () => (await attempt.ask()).header('etag'));
      if (etag === undefined || etag === error.details['etag']) return error;
      const message = `${error.message}; the server sends another ETag with each answer (now ${etag})`;
      return new CodError(error.code, message, { details: { ...error.details, isUnstable: true } });
    } catch {
      return error;
    }
  }
}

export interface DownloadOptions extends InternalStreamOptions {
  /** Set if a reader waits: a late request is sent a second time. Makes other downloads give way to this one. */
  readonly makeRoomFor?: (download: Download) => boolean;
}

/**
 * Downloads the bytes [start, end). Resumes where a request broke. One pull at a time. Abort controllers are costly, so
 * each request has only one.
 */
export class Download {
  readonly #resource: Resource;
  readonly #start: number;
  readonly #end: number;
  readonly #options: DownloadOptions;
  readonly #unlink: () => void;
  #at: number;
  /** When the last bytes came. */
  #sinceMs: number;
  /** The requests in flight: one, or two until one of them is answered. */
  readonly #attempts = new Set<RangeAttempt>();
  /** The request that is answered. */
  #answered: RangeAttempt | undefined;
  /** Where the latest request started, and which byte it asked for first. */
  #latest: { readonly from: URL; readonly at: number } | undefined;
  /** Counts the failures since the last progress. */
  #backoff: Backoff | undefined;
  #waiting: AbortController | undefined;
  #aborted: { readonly reason: unknown } | undefined;
  /** Lasts for as long as this download gives way. */
  #pause: Promise<void> | undefined;
  #onEnd: (() => void)[] = [];

  constructor(resource: Resource, start: number, end: number, options: DownloadOptions) {
    this.#resource = resource;
    this.#start = this.#at = start;
    this.#end = end;
    this.#sinceMs = resource.options.clock.now();
    this.#options = options;
    this.#unlink = link(options.signal, this);
  }

  /** Resolves to the next piece, valid until the next call, or to undefined at the end. */
  async pull(): Promise<Uint8Array | undefined> {
    while (this.#at < this.#end || this.#answered !== undefined) {
      try {
        this.#throwIfAborted();
        if (this.#pause !== undefined) await this.#whilePaused(this.#pause);
        this.#answered ??= await this.#ask();
        const piece = await this.#answered.next();
        if (piece !== undefined) {
          this.#at += piece.length;
          this.#sinceMs = this.#resource.options.clock.now();
          this.#backoff = undefined;
          return piece;
        }
        this.#endAttempts();
      } catch (error) {
        this.#endAttempts();
        this.#throwIfAborted();
        if (error === GIVEN_WAY) continue;
        // All bytes have come, so it does not matter that the connection broke before the end of the body.
        if (this.#at === this.#end && !(error instanceof CodError)) return undefined;
        await this.#wait(error);
      }
    }
    return undefined;
  }

  /** Whether no reader waits for it. */
  get isStream(): boolean {
    return this.#options.makeRoomFor === undefined;
  }

  /** Stops the request in flight until `until` resolves. Returns false if no request was in flight. */
  giveWay(until: Promise<void>): boolean {
    const running = [...this.#attempts].filter(({ signal }) => !signal.aborted);
    if (running.length === 0) return false;
    // A stopped request that its consumer has not noticed may have a pause already.
    this.#pause = Promise.all([this.#pause, until]).then(() => undefined);
    for (const attempt of running) attempt.abort(GIVEN_WAY);
    return true;
  }

  /** Resolves when this download has ended. */
  ended(): Promise<void> {
    return new Promise((resolve) => this.#onEnd.push(resolve));
  }

  abort(reason: unknown): void {
    this.#aborted ??= { reason };
    for (const attempt of this.#attempts) attempt.abort(reason);
    this.#waiting?.abort(reason);
  }

  end(): void {
    this.#unlink();
    this.#endAttempts();
    for (const resolve of this.#onEnd.splice(0)) resolve();
  }

  /** Sends a request. A reader's late request is sent again over another connection, and the first answer counts. */
  async #ask(): Promise<RangeAttempt> {
    const { hedging, location, options } = this.#resource;
    this.#latest = { from: location.current, at: this.#at };
    const first = this.#begin();
    const asking = first.begin();
    if (this.isStream) {
      await asking;
      return first;
    }
    const startMs = options.clock.now();
    const lateMs = hedging.begin();
    const no = () => false;
    const late = lateMs < Number.POSITIVE_INFINITY && options.clock.sleep(lateMs, first.signal).then(() => true, no);
    if (late && (await Promise.race([asking.then(no, no), late])) && hedging.take()) {
      const second = this.#begin();
      const winner = await firstOf([answerOf(first, asking), answerOf(second, second.begin())]);
      for (const attempt of this.#attempts) if (attempt !== winner) this.#endAttempt(attempt);
      if (winner === second) return second;
    }
    await asking;
    hedging.answered(options.clock.now() - startMs);
    return first;
  }

  #begin(): RangeAttempt {
    const { location } = this.#resource;
    const asked = new Asked(location, this.#at, this.#end, this.#options.pieceBytes);
    const attempt = new RangeAttempt(this.#resource, asked);
    this.#attempts.add(attempt);
    return attempt;
  }

  async #wait(error: unknown): Promise<void> {
    const { location, options } = this.#resource;
    const { isCrowded, isSlow } = error instanceof PassingError ? error.options : {};
    // An address that gave some bytes is kept: another mirror may have another ETag.
    if (this.#latest !== undefined && (isSlow || this.#at === this.#latest.at)) location.failed(this.#latest.from);
    if (isCrowded && this.#options.makeRoomFor?.(this)) return;
    const backoff = (this.#backoff ??= options.retries.backoff(
      new Asked(location, this.#start, this.#end).what,
      ATTEMPTS,
      this.isStream ? undefined : this.#sinceMs,
    ));
    await this.#interruptible((signal) => backoff.wait(error, signal));
  }

  async #whilePaused(pause: Promise<void>): Promise<void> {
    await this.#interruptible((signal) => withSignal(pause, signal));
    this.#pause = undefined;
  }

  async #interruptible(wait: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.#waiting = new AbortController();
    try {
      await wait(this.#waiting.signal);
    } finally {
      this.#waiting = undefined;
    }
  }

  #throwIfAborted(): void {
    if (this.#aborted !== undefined) throw this.#aborted.reason;
  }

  #endAttempts(): void {
    for (const attempt of this.#attempts) this.#endAttempt(attempt);
    this.#answered = undefined;
  }

  #endAttempt(attempt: RangeAttempt): void {
    attempt.end();
    this.#attempts.delete(attempt);
  }
}

interface Answer {
  readonly attempt: RangeAttempt;
  /** Why the answer is final and no success. */
  readonly error?: CodError;
}

async function answerOf(attempt: RangeAttempt, asking: Promise<void>): Promise<Answer> {
  try {
    await asking;
  } catch (error) {
    if (error instanceof CodError) return { attempt, error };
    throw error;
  }
  return { attempt };
}

/** Returns the request that is answered first. @throws its final error; the first request's error if all fail. */
async function firstOf(answers: readonly Promise<Answer>[]): Promise<RangeAttempt> {
  const { attempt, error } = await Promise.any(answers).catch((all: AggregateError) => {
    throw all.errors[0];
  });
  if (error !== undefined) throw error;
  return attempt;
}

/** One request. It ends when it is aborted, when it stalls, or with {@link end}. */
class Attempt {
  readonly asked: Asked;
  readonly #resource: Resource;
  readonly #from: URL;
  readonly #controller = new AbortController();
  readonly #watch: StallWatch;
  #located: Located | undefined;

  constructor(resource: Resource, asked: Asked) {
    this.asked = asked;
    this.#resource = resource;
    this.#from = resource.location.current;
    const { clock, limits } = resource.options;
    const { signal } = this.#controller;
    this.#watch = new StallWatch({ clock, limits, signal, expire: (why) => this.abort(why) });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Sends the request. @throws the error that the status and the body of the response tell. */
  async ask(how: { readonly method?: 'HEAD'; readonly range?: string } = this.asked): Promise<HttpResponse> {
    const { location } = this.#resource;
    const { signal } = this;
    const { method, range } = how;
    const located = await this.#due(location.get(range, { method, signal, pieceBytes: this.asked.pieceBytes }));
    this.#located = located;
    const { response } = located;
    if (isUsable(response.status)) return response;
    const said = await readErrorBody(
      response,
      () => this.pull(),
      (text) => location.hide(text),
    );
    throw refusal(response, this.asked, said);
  }

  /** Checks the response. @throws COD_SOURCE_CHANGED; PassingError if it came from another mirror. */
  async check(response: HttpResponse): Promise<Slice> {
    const { known, options, location } = this.#resource;
    try {
      const slice = checkAnswer(response, this.asked, known, options);
      this.accepted();
      return slice;
    } catch (error) {
      if (!isCodError(error, 'COD_SOURCE_CHANGED')) throw error;
      if (this.#located !== undefined && location.isElsewhere(this.#located))
        throw new PassingError('a redirect leads to another mirror, whose file differs', { final: error });
      throw error.details['etag'] === undefined ? error : await this.#resource.explained(error);
    }
  }

  accepted(): void {
    if (this.#located !== undefined) this.#resource.location.accepted(this.#located);
  }

  failed(): void {
    this.#resource.location.failed(this.#from);
  }

  async pull(): Promise<Uint8Array | undefined> {
    if (this.#located === undefined) return undefined;
    const piece = await this.#due(this.#located.response.pull());
    this.#watch.received(piece?.length ?? 0);
    return piece;
  }

  /** Reads a short body to its end. */
  async drain(maxBytes: number): Promise<void> {
    let bytes = 0;
    for (let piece = await this.pull(); piece !== undefined && bytes < maxBytes; piece = await this.pull())
      bytes += piece.length;
  }

  /** Runs a task with this request, and ends the request. The signal aborts it. */
  async during<T>(signal: AbortSignal | undefined, task: () => Promise<T>): Promise<T> {
    const unlink = link(signal, this);
    try {
      return await task();
    } finally {
      unlink();
      this.end();
    }
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  end(): void {
    this.#located?.response.cancel();
    this.#located = undefined;
    this.#controller.abort(ENDED);
  }

  async #due<T>(awaited: Promise<T>): Promise<T> {
    this.#watch.begin();
    try {
      return await awaited;
    } catch (error) {
      throw this.signal.aborted ? this.signal.reason : error;
    } finally {
      this.#watch.end();
    }
  }
}

/** One request for a range. Checks the response, and cuts the body to the range. */
class RangeAttempt extends Attempt {
  #skip = 0;
  #missing = 0;
  /** Whether the body must end where the range ends. Of a longer body that may continue, the rest is not read. */
  #mustEnd = true;

  /** Sends the request, and resolves when the response has been checked. */
  async begin(): Promise<void> {
    const { skip, length, mustEnd } = await this.check(await this.ask());
    this.#skip = skip;
    this.#missing = length;
    this.#mustEnd = mustEnd;
  }

  /** To be called after {@link begin}. The response may cover only the beginning of the range. */
  async next(): Promise<Uint8Array | undefined> {
    while (this.#missing > 0 || this.#mustEnd) {
      const piece = await this.pull();
      if (!piece) break;
      const wanted = this.#skip === 0 ? piece : piece.subarray(Math.min(this.#skip, piece.length));
      this.#skip -= piece.length - wanted.length;
      if (wanted.length > this.#missing && this.#mustEnd)
        throw new CodError(
          'COD_SOURCE_IO',
          `${this.asked.what}: the server sent more bytes than requested; if it compresses the file, turn that off`,
        );
      if (wanted.length === 0) continue;
      const part = wanted.subarray(0, this.#missing);
      this.#missing -= part.length;
      return part;
    }
    if (this.#missing > 0) throw new PassingError(`the response ended ${this.#missing} bytes early`);
    return undefined;
  }
}

/** Makes `from` abort `to`, with its reason. Returns a function that undoes this. */
function link(from: AbortSignal | undefined, to: { abort(reason: unknown): void }): () => void {
  if (from === undefined) return () => {};
  const onAbort = () => to.abort(from.reason);
  if (from.aborted) onAbort();
  else from.addEventListener('abort', onAbort, { once: true });
  return () => from.removeEventListener('abort', onAbort);
}
