/** The HTTP source with Node's faster transport. */

import type { Source } from '../source.ts';
import { nodeTransport } from './node-transport.ts';
import { type HttpSourceOptions, httpSource as httpSourceOver } from './source.ts';

/** As the isomorphic `httpSource`, over undici's own client instead of `fetch`, for speed. */
export function httpSource(url: string | URL, options: HttpSourceOptions = {}): Promise<Source> {
  return httpSourceOver(url, { ...options, transport: options.transport ?? nodeTransport() });
}
