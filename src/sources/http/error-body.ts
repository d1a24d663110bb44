/** What the body of an error response says: code and message of S3, GCS or Azure, or the text of a page. */

import type { HttpResponse } from './transport.ts';

const MAX_BODY_BYTES = 4096;
const MAX_CHARACTERS = 200;
const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' };

/**
 * Reads the body of an error response, at most 4 KiB of it.
 *
 * @param pull returns the next piece of the body
 * @param hide removes secrets
 */
export async function readErrorBody(
  response: HttpResponse,
  pull: () => Promise<Uint8Array | undefined>,
  hide: (text: string) => string,
): Promise<string | undefined> {
  const body = new Uint8Array(MAX_BODY_BYTES);
  let length = 0;
  try {
    for (let piece = await pull(); piece !== undefined && length < MAX_BODY_BYTES; piece = await pull()) {
      const part = piece.subarray(0, MAX_BODY_BYTES - length);
      body.set(part, length);
      length += part.length;
    }
  } catch {
    // The status is the failure. Its explanation is incomplete.
  }
  const isEncoded = (response.header('content-encoding') ?? 'identity') !== 'identity';
  const said = isEncoded ? '' : meaningOf(new TextDecoder().decode(body.subarray(0, length)));
  const region = response.header('x-amz-bucket-region');
  // Secrets are removed before the text is cut, which might leave a part of one.
  const text = hide(plain(region === undefined ? said : `${said}, the bucket is in ${region}`));
  if (text === '') return undefined;
  return text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)}…` : text;
}

function meaningOf(body: string): string {
  // A character may be cut at the end. Anywhere else, it is no text.
  const text = body.replace(/\uFFFD+$/, '');
  if (text.includes('\uFFFD')) return '';
  const code = field(text, 'Code', 'status', 'reason', 'error');
  const message = field(text, 'Message', 'error_description');
  if (code !== '' || message !== '') return code && message ? `${code}: ${message}` : code || message;
  const title = /<title[^>]*>([^<]*)/i.exec(text)?.[1];
  return unescaped(title ?? text.replace(/<(script|style)\b.*?(<\/\1>|$)|<[^>]*(>|$)/gis, ' '));
}

/** Returns the value of the first of some XML elements, or of string members in JSON. The text may be cut anywhere. */
function field(text: string, ...names: string[]): string {
  for (const name of names) {
    const pattern = new RegExp(`<${name}>([^<]+)|"${name}"\\s*:\\s*"((?:[^"\\\\]|\\\\.)+)`, 'i');
    const [, xml, json] = pattern.exec(text) ?? [];
    if (xml !== undefined) return unescaped(xml);
    if (json !== undefined)
      return json.replace(/\\(u([0-9a-f]{4})|.)/gi, (_, one, hex) =>
        hex ? character(`0x${hex}`) : /[nrtbf]/.test(one) ? ' ' : one,
      );
  }
  return '';
}

function unescaped(text: string): string {
  return text.replace(/&(?:#(x?[0-9a-f]{1,6})|(lt|gt|quot|apos|amp));/gi, (_, code, name) =>
    code ? character(code.replace(/^x/i, '0x')) : ENTITIES[name.toLowerCase()]!,
  );
}

function character(code: string): string {
  const point = Number(code);
  return point <= 0x10ffff ? String.fromCodePoint(point) : ' ';
}

/** Returns the text without control and format characters, which could hide or reorder what a terminal shows. */
function plain(text: string): string {
  return text.replace(/[\p{C}\s]+/gu, ' ').trim();
}
