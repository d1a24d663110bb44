/**
 * `#http-transport` under the condition `node`.
 *
 * undici, node:tls and node:net are loaded with the first request.
 * That takes 95 ms (Node 20, 2026), which only users of HTTP sources pay.
 */

import { fetchTransport } from './fetch-transport.ts';
import { lazyTransport } from './lazy-transport.ts';
import type { HttpTransport } from './transport.ts';

/** The transport over undici, or over `fetch` where undici does not run. */
export function platformTransport(): HttpTransport {
  return lazyTransport(load);
}

/** undici 8 throws while Node 20 loads it. npm selects undici 7 there; other package managers may not. */
async function load(): Promise<HttpTransport> {
  try {
    const { nodeTransport } = await import('./node-transport.ts');
    return nodeTransport();
  } catch {
    return fetchTransport();
  }
}
