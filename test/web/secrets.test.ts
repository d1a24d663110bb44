import { describe, expect, it } from 'vitest';
import { withoutSecrets, withoutSignature } from '../../src/web/secrets.ts';

const AT = 'https://example.org/disk.raw';

describe('of a URL the page stores', () => {
  it.each([
    ['no credentials', 'https://user:secret@example.org/disk.raw', AT],
    ['no fragment', `${AT}#access_token=x`, AT],
    ['no signature of S3', `${AT}?X-Amz-Algorithm=A&X-Amz-Credential=B&X-Amz-Date=1&X-Amz-Signature=ff`, AT],
    ['no signature of Google', `${AT}?GoogleAccessId=a&X-Goog-Signature=ff`, `${AT}?GoogleAccessId=a`],
    ['no signature of Azure', `${AT}?sv=2020&se=2026&sr=b&sp=r&sig=ff`, AT],
    ['no token', `${AT}?part=2&token=abc`, `${AT}?part=2`],
    ['no long value', `${AT}?q=0123456789abcdef0123&part=2`, `${AT}?part=2`],
    ['the query of a common URL as it is', `${AT}?name=a%20b&v=2`, `${AT}?name=a%20b&v=2`],
  ])('%s', (_, url, stored) => {
    expect(withoutSecrets(url)).toBe(stored);
  });

  it('names a resource alike under each signature', () => {
    const signed = (signature: string): string => `${AT}?file=a-long-name-of-one-of-them&X-Amz-Signature=${signature}`;
    expect(withoutSignature(signed('1'))).toBe(withoutSignature(signed('2')));
    expect(withoutSignature(signed('1'))).toContain('a-long-name');
  });
});
