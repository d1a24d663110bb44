/** Objects in S3 and in stores that speak its protocol, as sources: an HTTP source whose requests are signed. */

import { type HttpSourceOptions, openHttpSource } from '../http/source.ts';
import type { HttpResponse } from '../http/transport.ts';
import type { Source } from '../source.ts';
import { type S3Credentials, type SignableRequest, Signer, uriEncode } from './signature.ts';

/** Returns the credentials to use from now on. Undefined: none, so requests are anonymous. */
export type S3CredentialsFunction = () => S3Credentials | undefined | Promise<S3Credentials | undefined>;

/** Options of {@link s3Source}. */
export interface S3SourceOptions extends Omit<HttpSourceOptions, 'username' | 'password' | 'allowWholeBody'> {
  /** The bucket's name. */
  bucket: string;
  /** The object's key, as it is: not percent-encoded. */
  key: string;
  /** A version of the object. Default: the current one. */
  versionId?: string;
  /**
   * Who asks. A function is called at opening, and again when the server says that the credentials have expired or are
   * wrong (400, 401, 403), once for each failure. Default: requests are not signed, for public objects.
   */
  credentials?: S3Credentials | S3CredentialsFunction | undefined;
  /** The bucket's region. A wrong one costs one request if the server tells the right one. Default: `us-east-1`. */
  region?: string;
  /** The server, http or https, with a path if it has one. Default: that of AWS in the region. */
  endpoint?: string | URL;
  /**
   * Whether the bucket's name is in the path (`host/bucket/key`) or in the host (`bucket.host/key`). Default: in the
   * path if an endpoint is given, or if the name has characters that a host or its certificate does not cover.
   */
  pathStyle?: boolean;
}

const BUCKET = /^[a-z0-9][a-z0-9._-]*$/i;
const BUCKET_IN_HOST = /^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/;
/** It becomes a part of a host's name, and a server may send it. */
const REGION = /^[a-z0-9][a-z0-9-]{0,62}$/;
/** S3 accepts a signature within 15 minutes. Smaller differences of the clocks are ignored. */
const MIN_SKEW_MS = 300_000;

/**
 * Opens an object in S3 as a source. It is {@link httpSource} with signed requests (Signature Version 4): what that
 * function says of retries, identity, redirects and errors holds here. In a browser, it needs a secure context.
 *
 * - If the server names another region (`x-amz-bucket-region`), requests go there from then on.
 * - If the server refuses credentials, the function for them is asked again.
 * - If the clocks differ by more than five minutes, signatures have the server's time.
 * - `headers`, such as `x-amz-request-payer`, are signed, too.
 * - Without `versionId`, an object that is replaced is noticed by its ETag (COD_SOURCE_CHANGED).
 *
 * @throws {@link CodError} COD_NOT_FOUND when bucket or key do not exist; COD_SOURCE_IO when the server denies access
 *   or cannot be reached; otherwise as {@link httpSource}.
 * @throws `TypeError` when bucket, key, region or endpoint is malformed, or a segment of the key is `.` or `..`: URLs
 *   cannot express that.
 * @throws what the function for the credentials throws at opening.
 * @example
 * ```ts
 * import { s3Source } from 'copyondemand';
 * import { awsCredentials } from 'copyondemand/node';
 *
 * // For `source` of `openDevice`, which calls it when it needs the source.
 * const source = () => s3Source({ bucket: 'images', key: 'disk.raw', credentials: awsCredentials() });
 * ```
 */
export async function s3Source(options: S3SourceOptions): Promise<Source & AsyncDisposable> {
  const { bucket, key, versionId, credentials, region, endpoint, pathStyle, ...http } = options;
  const object = new S3Object({ bucket, key, versionId, credentials, region, endpoint, pathStyle });
  return openHttpSource((refusal) => object.locate(refusal), {
    ...http,
    sign: (request) => object.sign(request),
    isMoved: (response) => response.status < 400 && regionOf(response) !== undefined,
  });
}

type Settings = {
  readonly [Name in 'bucket' | 'key' | 'versionId' | 'credentials' | 'region' | 'endpoint' | 'pathStyle']:
    | S3SourceOptions[Name]
    | undefined;
} & Pick<S3SourceOptions, 'bucket' | 'key'>;

class S3Object {
  readonly #settings: Settings;
  #region: string;
  #credentials: S3Credentials | undefined;
  #signer: Signer | undefined;
  /** By how many ms the server's clock is ahead. */
  #skewMs = 0;

  constructor(settings: Settings) {
    const { bucket, key, region = 'us-east-1', endpoint } = settings;
    if (!BUCKET.test(bucket)) throw new TypeError(`malformed bucket name ${JSON.stringify(bucket)}`);
    if (key === '') throw new TypeError('the key is empty');
    if (key.split('/').some((part) => part === '.' || part === '..'))
      throw new TypeError(`key ${JSON.stringify(key)}: a URL cannot have the segments . and ..`);
    if (!REGION.test(region)) throw new TypeError(`malformed region ${JSON.stringify(region)}`);
    const at = endpoint !== undefined && URL.canParse(endpoint) ? new URL(endpoint) : undefined;
    if (endpoint !== undefined && (!/^https?:$/.test(at?.protocol ?? '') || at?.username || at?.password))
      throw new TypeError('the endpoint must be a URL with http:// or https://, without credentials');
    this.#settings = settings;
    this.#region = region;
  }

  /** Returns the URL. Takes note of what a refusal tells: another region, or that the credentials do not count. */
  async locate(refusal: HttpResponse | undefined): Promise<URL> {
    const region = refusal && regionOf(refusal);
    if (region !== undefined && region !== this.#region) {
      this.#region = region;
    } else {
      const { credentials } = this.#settings;
      this.#credentials = typeof credentials === 'function' ? await credentials() : credentials;
      const skewMs = Date.parse(refusal?.header('date') ?? '') - Date.now();
      if (Math.abs(skewMs) > MIN_SKEW_MS) this.#skewMs = skewMs;
    }
    this.#signer = this.#credentials && new Signer(this.#credentials, this.#region);
    return this.#url();
  }

  /** Returns the headers to add to a request. None without credentials. */
  async sign(request: SignableRequest): Promise<Record<string, string>> {
    return this.#signer?.sign(request, new Date(Date.now() + this.#skewMs)) ?? {};
  }

  #url(): URL {
    const { bucket, key, versionId, endpoint } = this.#settings;
    const { pathStyle = endpoint !== undefined || !BUCKET_IN_HOST.test(bucket) } = this.#settings;
    const domain = this.#region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com';
    const url = new URL(endpoint ?? `https://s3.${this.#region}.${domain}`);
    if (!pathStyle) url.hostname = `${bucket}.${url.hostname}`;
    const parts = [...(pathStyle ? [bucket] : []), ...key.split('/')];
    url.pathname = `${url.pathname.replace(/\/$/, '')}/${parts.map(uriEncode).join('/')}`;
    url.search = versionId === undefined ? '' : `versionId=${uriEncode(versionId)}`;
    return url;
  }
}

/** Returns the region that an answer names, if it is one. */
function regionOf(response: HttpResponse): string | undefined {
  const region = response.header('x-amz-bucket-region');
  return region !== undefined && response.status >= 300 && REGION.test(region) ? region : undefined;
}
