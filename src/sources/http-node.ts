/** The HTTP source with Node's faster transport. */

import type { Source } from '../device/source.ts';
import { type HttpSourceOptions, httpSource as httpSourceOver } from './http.ts';
import { nodeTransport } from './node-transport.ts';

/** As the isomorphic `httpSource`, over node:http instead of `fetch`: 1.3 to 1.9 times as fast on loopback. */
export function httpSource(url: string | URL, options: HttpSourceOptions = {}): Promise<Source> {
  return httpSourceOver(url, { ...options, transport: options.transport ?? nodeTransport() });
}
