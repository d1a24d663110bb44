/** S3 as a behaviour of the test server: it verifies Signature Version 4 by itself, and refuses as AWS does. */

import { createHash, createHmac } from 'node:crypto';
import type { Ask, Behaviour } from './http-server.ts';

/** What the service knows. A test may change it between requests. */
export interface S3State {
  region: string;
  /** Secret and session token by access key. */
  readonly keys: Map<string, { secret: string; token?: string; isExpired?: boolean }>;
  /** The paths that have the object, each with its versions. */
  readonly objects: Map<string, readonly string[]>;
  /** Objects that need no signature. */
  readonly open: Set<string>;
  /** By how many ms the service's clock is ahead. */
  skewMs: number;
  /** Counts the refusals by their code. */
  readonly refusals: string[];
}

export function s3State(state: Partial<S3State> = {}): S3State {
  return {
    region: 'us-east-1',
    keys: new Map(),
    objects: new Map(),
    open: new Set(),
    skewMs: 0,
    refusals: [],
    ...state,
  };
}

const CREDENTIAL = /Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request/;
const AUTHORIZATION = new RegExp(`^AWS4-HMAC-SHA256 ${CREDENTIAL.source}, SignedHeaders=([^,]+), Signature=(\\w+)$`);

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();

/** Serves the object to callers who may read it. */
export function s3(state: S3State): Behaviour {
  return (ask) => {
    const code = refusalOf(ask, state);
    const date = new Date(Date.now() + state.skewMs).toUTCString();
    if (code === undefined) return ask.send({ headers: { date } });
    state.refusals.push(code[1]);
    const [status, name] = code;
    const moved = name === 'AuthorizationHeaderMalformed' || name === 'PermanentRedirect';
    return ask.send({
      status,
      headers: { date, 'content-type': 'application/xml', ...(moved ? { 'x-amz-bucket-region': state.region } : {}) },
      body: `<Error><Code>${name}</Code><Message>Refused by the test</Message><Resource>${ask.path}</Resource></Error>`,
    });
  };
}

/** The status and the code with which AWS refuses the request, if it does. */
function refusalOf(ask: Ask, state: S3State): [number, string] | undefined {
  const [path = '', query = ''] = ask.path.split('?');
  const version = /^versionId=(.*)$/.exec(query)?.[1];
  // The path-style name of the object, for either style.
  const bucket = /^([^.]+)\.s3\./.exec(ask.headers['host'] ?? '')?.[1];
  const place = bucket === undefined ? path : `/${bucket}${path}`;
  const hostRegion = /\.?s3\.([^.]+)\.amazonaws\.com$/.exec(ask.headers['host'] ?? '')?.[1];
  if (hostRegion !== undefined && hostRegion !== state.region) return [301, 'PermanentRedirect'];
  const refused = ask.headers['authorization'] === undefined ? undefined : wrongSignature(ask, path, query, state);
  if (refused !== undefined) return refused;
  if (ask.headers['authorization'] === undefined && !state.open.has(place)) return [403, 'AccessDenied'];
  const versions = state.objects.get(place);
  if (versions === undefined) return [404, 'NoSuchKey'];
  return version === undefined || versions.includes(version) ? undefined : [404, 'NoSuchVersion'];
}

function wrongSignature(ask: Ask, path: string, query: string, state: S3State): [number, string] | undefined {
  const found = AUTHORIZATION.exec(ask.headers['authorization']!);
  if (found === null) return [400, 'InvalidArgument'];
  const [, id, day, region, names, signature] = found as unknown as string[];
  const key = state.keys.get(id!);
  if (key === undefined) return [403, 'InvalidAccessKeyId'];
  if (region !== state.region) return [400, 'AuthorizationHeaderMalformed'];
  if (ask.headers['x-amz-security-token'] !== key.token) return [400, 'InvalidToken'];
  const time = ask.headers['x-amz-date']!;
  const at = Date.parse(time.replace(/^(....)(..)(..T..)(..)/, '$1-$2-$3:$4:'));
  if (!time.startsWith(day!) || !(Math.abs(at - Date.now() - state.skewMs) < 900_000))
    return [403, 'RequestTimeTooSkewed'];
  const signed = names!.split(';');
  if (!signed.includes('host') || Object.keys(ask.headers).some((n) => n.startsWith('x-amz-') && !signed.includes(n)))
    return [403, 'AccessDenied'];
  const hash = ask.headers['x-amz-content-sha256']!;
  const lines = signed.map((name) => `${name}:${ask.headers[name] ?? ''}\n`).join('');
  const canonical = `${ask.method}\n${path}\n${query.split('&').sort().join('&')}\n${lines}\n${names}\n${hash}`;
  const text = `AWS4-HMAC-SHA256\n${time}\n${day}/${region}/s3/aws4_request\n${sha256(canonical)}`;
  const derived = [day!, region, 's3', 'aws4_request'].reduce<string | Buffer>(hmac, `AWS4${key.secret}`);
  if (hmac(derived, text).toString('hex') !== signature || hash !== sha256('')) return [403, 'SignatureDoesNotMatch'];
  return key.isExpired ? [400, 'ExpiredToken'] : undefined;
}
