/** What the HTTP source needs of the platform: a GET, the head of its response, and the body pulled piece by piece. */

/** A request of {@link HttpTransport.request}. */
export interface HttpRequest {
  /** http or https, without credentials. */
  readonly url: URL;
  /** Default: GET. A transport may send a GET instead of a HEAD: the body is not read. */
  readonly method?: 'HEAD' | undefined;
  /** By name in lower case. A GET always has `range`. */
  readonly headers: Readonly<Record<string, string>>;
  /** When aborted, the request ends immediately and frees its socket. Pending calls reject with the signal's reason. */
  readonly signal: AbortSignal;
}

/** What the source passes to our own transports. Internal. */
export interface InternalHttpRequest extends HttpRequest {
  /** Preferred length of a piece in bytes. Such pieces begin on a page of memory if possible. */
  readonly pieceBytes?: number | undefined;
}

/** The head of a response, and its body piece by piece. */
export interface HttpResponse {
  /** The status code (RFC 9110, section 15). */
  readonly status: number;
  /** The URL of the response. It differs from the requested one if the platform follows redirects itself. */
  readonly url: URL;
  /**
   * Returns the value of a header, or undefined if the response does not have it.
   *
   * @param name in lower case
   */
  header(name: string): string | undefined;
  /**
   * Resolves to the next piece of the body, never empty, or to undefined at its end. A piece is valid until the next
   * call. Without further calls, the server is held back.
   *
   * @throws an error when the body ends before the length that its head announced.
   * @throws the signal's reason when the request's signal is aborted.
   */
  pull(): Promise<Uint8Array | undefined>;
  /**
   * Ends the request. The last piece is not used any more. The connection may be kept if the body was read to its end;
   * otherwise it is closed. Idempotent.
   */
  cancel(): void;
}

/** Sends requests, which may overlap without limit. A CodError is final; after any other error a retry may succeed. */
export interface HttpTransport {
  /**
   * Sends a request and resolves to the head of the response. The caller follows redirects that the platform shows.
   *
   * @throws {@link CodError} when a retry is pointless; any other error when a retry may succeed.
   * @throws the signal's reason when the request's signal is aborted.
   */
  request(request: HttpRequest): Promise<HttpResponse>;
  /** Closes idle connections. Requests in flight are ended by their signals. */
  close(): void;
}
