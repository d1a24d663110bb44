/** The HTTP source with Node's faster transport. */

import type { Source } from '../device/source.ts';
import { type HttpSourceOptions, httpSource as httpSourceOver } from './http.ts';
import { nodeTransport } from './node-transport.ts';

/** As the isomorphic `httpSource`, over undici's own client instead of `fetch`, for speed. */
export function httpSource(url: string | URL, options: HttpSourceOptions = {}): Promise<Source> {
  return httpSourceOver(url, { ...options, transport: options.transport ?? nodeTransport() });
}
