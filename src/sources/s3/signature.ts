/**
 * AWS Signature Version 4 for requests without a body.
 *
 * Own code, since the algorithm is short: a request is four lines and its headers, hashed and authenticated. AWS's
 * published examples are its tests.
 */

/** Credentials of S3. */
export interface S3Credentials {
  /** Names the key. Not secret. */
  readonly accessKeyId: string;
  /** The key. Never sent, never shown. */
  readonly secretAccessKey: string;
  /** Belongs to temporary credentials. Sent, never shown. */
  readonly sessionToken?: string | undefined;
}

/** A request to be signed. */
export interface SignableRequest {
  readonly method: string;
  readonly url: URL;
  /** By name in lower case. All of them are signed. */
  readonly headers: Readonly<Record<string, string>>;
}

/** SHA-256 of an empty body. */
const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

/** Signs requests, and keeps the derived key of the day. */
export class Signer {
  readonly #credentials: S3Credentials;
  readonly #region: string;
  #key: { readonly day: string; readonly promise: Promise<ArrayBuffer> } | undefined;

  constructor(credentials: S3Credentials, region: string) {
    this.#credentials = credentials;
    this.#region = region;
  }

  /**
   * Returns the headers to add to a request.
   *
   * @param date the time of the server: S3 refuses a signature that is 15 minutes off
   */
  async sign({ method, url, headers }: SignableRequest, date: Date): Promise<Record<string, string>> {
    const { accessKeyId, sessionToken } = this.#credentials;
    const time = date.toISOString().replace(/[-:]|\.\d+/g, '');
    const day = time.slice(0, 8);
    const scope = `${day}/${this.#region}/s3/aws4_request`;
    const added = {
      'x-amz-content-sha256': EMPTY_SHA256,
      'x-amz-date': time,
      ...(sessionToken === undefined ? {} : { 'x-amz-security-token': sessionToken }),
    };
    const signed = Object.entries({ host: url.host, ...headers, ...added }).sort(([a], [b]) => (a < b ? -1 : 1));
    const names = signed.map(([name]) => name).join(';');
    const lines = signed.map(([name, value]) => `${name}:${value.trim().replace(/ +/g, ' ')}\n`);
    const canonical = [method, url.pathname, queryOf(url), lines.join(''), names, EMPTY_SHA256].join('\n');
    const toSign = ['AWS4-HMAC-SHA256', time, scope, hex(await sha256(canonical))].join('\n');
    const signature = hex(await hmac(await this.#keyOf(day), toSign));
    const credential = `Credential=${accessKeyId}/${scope}`;
    return {
      ...added,
      authorization: `AWS4-HMAC-SHA256 ${credential}, SignedHeaders=${names}, Signature=${signature}`,
    };
  }

  #keyOf(day: string): Promise<ArrayBuffer> {
    if (this.#key?.day !== day) {
      const parts = [day, this.#region, 's3', 'aws4_request'];
      const secret: Promise<BufferSource> = Promise.resolve(utf8(`AWS4${this.#credentials.secretAccessKey}`));
      const promise = parts.reduce(async (key, part) => hmac(await key, part), secret) as Promise<ArrayBuffer>;
      this.#key = { day, promise };
    }
    return this.#key.promise;
  }
}

/** Encodes all but the unreserved characters of RFC 3986, as the signature needs it. */
export function uriEncode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`);
}

function queryOf(url: URL): string {
  return [...url.searchParams]
    .map(([name, value]) => `${uriEncode(name)}=${uriEncode(value)}`)
    .sort()
    .join('&');
}

function utf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

function sha256(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest('SHA-256', utf8(text));
}

async function hmac(key: BufferSource, text: string): Promise<ArrayBuffer> {
  const imported = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return crypto.subtle.sign('HMAC', imported, utf8(text));
}

function hex(bytes: ArrayBuffer): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
