/** Reads what a user types, pastes or drops as the address of an image. */

const SCHEME = /^[a-z][a-z\d+.-]*:\/\//i;
/** A host name with a dot, a local host, or a host with a port, before a path. */
const HOST = /^(?:localhost|[^\s/]+\.[^\s/]+|\[[\da-f:]+\]|[^\s/]+:\d+)(?::\d+)?\/\S/i;
const LOCAL = /^(?:localhost|127\.|\[::1\])/i;

/**
 * Returns the http or https URL that `text` means, or `undefined`. A host without a scheme is reached by https, and
 * this computer by http. Any other text with a path is relative to `base`.
 */
export function addressOf(text: string, base: string): string | undefined {
  const plain = text.trim().split(/[\r\n]/, 1)[0]!;
  if (plain === '') return undefined;
  const full = SCHEME.test(plain) || !HOST.test(plain) ? plain : `${LOCAL.test(plain) ? 'http' : 'https'}://${plain}`;
  if (!URL.canParse(full, base)) return undefined;
  const url = new URL(full, base);
  return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : undefined;
}
