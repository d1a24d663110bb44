/** A transport that is loaded with its first request. */

import type { HttpTransport } from './transport.ts';

export function lazyTransport(load: () => Promise<HttpTransport>): HttpTransport {
  let loading: Promise<HttpTransport> | undefined;
  return {
    async request(asked) {
      loading ??= load();
      return (await loading).request(asked);
    },
    close() {
      loading?.then(
        (transport) => transport.close(),
        () => {},
      );
    },
  };
}
