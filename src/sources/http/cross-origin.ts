/** Explains why a page cannot read a response from another origin, since `fetch` does not. */

import type { HttpRequest } from './transport.ts';

/**
 * Returns what must change so that a page can read `url`. Undefined if CORS is not the cause, or if there is no page.
 * The test is a request without a readable response: if the server answers it, the first one lacked permission.
 */
export async function whyUnreadable({ url, headers, signal }: HttpRequest): Promise<string | undefined> {
  const page = globalThis.location?.origin;
  if (page === undefined || page === url.origin) return undefined;
  const where = `${url.origin}${url.pathname}`;
  if (page.startsWith('https:') && url.protocol === 'http:' && !(await answers(url, signal))) {
    return `a page over https cannot read ${where}; use https`;
  }
  if (!(await answers(url, signal))) return undefined;
  const own = Object.keys(headers).filter((name) => name !== 'range');
  const allowed = own.length === 0 ? '' : `, and answer OPTIONS with "Access-Control-Allow-Headers: ${own.join(', ')}"`;
  return (
    `${where} does not allow other origins (CORS); ` +
    `the server must send "Access-Control-Allow-Origin: ${page}" or "*", ` +
    `"Access-Control-Expose-Headers: Content-Range, ETag"${allowed}`
  );
}

async function answers(url: URL, signal: AbortSignal): Promise<boolean> {
  try {
    await fetch(url, { method: 'HEAD', mode: 'no-cors', cache: 'no-store', credentials: 'omit', signal });
    return true;
  } catch {
    return false;
  }
}
