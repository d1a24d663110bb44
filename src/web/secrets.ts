/** Secrets of a URL: its credentials, and parameters such as a signature. The page stores none of them. */

/** Names of parameters that are secret, or belong to a signature. Those from `sv` on are Azure's. */
const SECRET_NAME =
  /sig|token|key|secret|pass|pwd|auth|cred|policy|session|code|jwt|expires|^x-(amz|goog|ms)-|^s([verpst]|pr|k\w+)$/i;
/** Any other value of so many characters may be a secret too. */
const LONG_VALUE = 20;

/** Returns a URL without its secrets, and without its fragment, which no server gets. */
export function withoutSecrets(url: string): string {
  return stripped(url, (name, value) => SECRET_NAME.test(name) || value.length >= LONG_VALUE);
}

export function hasSecret(url: string): boolean {
  const plain = new URL(url);
  plain.hash = '';
  return withoutSecrets(url) !== plain.href;
}

/** Returns what a URL with other secrets has in common with this one. Long values stay, so that it is one resource. */
export function withoutSignature(url: string): string {
  return stripped(url, (name) => SECRET_NAME.test(name));
}

function stripped(text: string, isSecret: (name: string, value: string) => boolean): string {
  const url = new URL(text);
  url.username = '';
  url.password = '';
  url.hash = '';
  // Without a secret the query stays as it is: the parameters would be written anew, in another encoding.
  const secrets = [...url.searchParams].filter(([name, value]) => isSecret(name, value));
  for (const [name] of secrets) url.searchParams.delete(name);
  return url.href;
}
