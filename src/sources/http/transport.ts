/** What the HTTP source needs of the platform: one GET, its head, and its body pulled piece by piece. */

export interface HttpRequest {
  /** http or https, without credentials. */
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Aborted: the request ends at once, its socket is freed, and what is pending rejects with the signal's reason. */
  readonly signal: AbortSignal;
}

/** What the source passes to our own transports. Internal. */
export interface InternalHttpRequest extends HttpRequest {
  /** The length of pieces that the consumer prefers, in bytes; such pieces begin on a page of memory if possible. */
  readonly pieceBytes?: number | undefined;
}

export interface HttpResponse {
  readonly status: number;
  /** Where the answer came from: another URL than asked for, if the platform follows redirects itself. */
  readonly url: URL;
  /** A header's value by its lower-case name. */
  header(name: string): string | undefined;
  /**
   * The body's next piece, never empty, or undefined at its end. A piece is valid until the next call. Not calling holds the server back.
   * Rejects if the body ends before the length that its head announced.
   */
  pull(): Promise<Uint8Array | undefined>;
  /** Ends the request. What was read to its end may keep its connection; anything else loses it. Idempotent. */
  cancel(): void;
}

/** Requests may overlap without limit. An error that is a CodError is final; after any other the request may be tried again. */
export interface HttpTransport {
  /** Sends a GET and resolves with the head of the answer; redirects are the caller's, as far as the platform shows them. */
  request(request: HttpRequest): Promise<HttpResponse>;
  /** Closes idle connections; requests are ended by their signals. */
  close(): void;
}
