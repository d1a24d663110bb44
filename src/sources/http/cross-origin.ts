/** Explains why a page cannot read a response from another origin, since `fetch` does not. */

import type { HttpRequest } from './transport.ts';

/**
 * Returns what must change so that a page can read `url`. Undefined if there is no page, or if the server does not
 * answer. The tests are requests without a range: first one whose answer the page may not read, then one that needs
 * permission. If the latter succeeds, CORS is not the cause, but the body of a range: browsers cannot decode compressed
 * ranges.
 */
export async function whyUnreadable({
  url,
  headers: { range: _, ...headers },
  signal,
}: HttpRequest): Promise<string | undefined> {
  const page = globalThis.location?.origin;
  if (page === undefined || page === url.origin) return undefined;
  const where = `${url.origin}${url.pathname}`;
  if (page.startsWith('https:') && url.protocol === 'http:' && !(await answers(url, signal))) {
    return `a page over https cannot read ${where}; use https`;
  }
  if (!(await answers(url, signal))) return undefined;
  if (await answers(url, signal, { mode: 'cors', headers })) {
    return `the browser cannot read ranges of ${where}; if the server compresses them, turn compression off`;
  }
  const own = Object.keys(headers);
  const allowed = own.length === 0 ? '' : `, and answer OPTIONS with "Access-Control-Allow-Headers: ${own.join(', ')}"`;
  return (
    `${where} does not allow other origins (CORS); ` +
    `the server must send "Access-Control-Allow-Origin: ${page}" or "*", ` +
    `"Access-Control-Expose-Headers: Content-Range, ETag"${allowed}`
  );
}

/** Whether the server answers, by default without permission to read the answer. */
async function answers(url: URL, signal: AbortSignal, how: RequestInit = { mode: 'no-cors' }): Promise<boolean> {
  try {
    await fetch(url, { method: 'HEAD', cache: 'no-store', credentials: 'omit', signal, ...how });
    return true;
  } catch {
    return false;
  }
}
