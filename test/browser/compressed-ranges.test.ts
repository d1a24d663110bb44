/**
 * A server of another origin that compresses. Firefox decodes a compressed range; else the error names the compression,
 * and does not blame CORS.
 */

import { expect, inject, test } from 'vitest';
import { CodError, inspectSource, openDevice } from '../../src/browser.ts';
import { IMAGE_BYTES } from './image.ts';

const worker = (): Worker => new Worker(new URL('../../src/browser-worker.ts', import.meta.url), { type: 'module' });
const url = (path: string): string => `${inject('serverUrl')}/compressed/${path}`;
const isFirefox = navigator.userAgent.includes('Firefox');

function expectRefusal(error: unknown): void {
  expect(error).toBeInstanceOf(CodError);
  expect(error).toMatchObject({ code: 'COD_SOURCE_IO', message: expect.stringMatching(/^(?!.*CORS).*compress/) });
}

test.each(['gzip', 'br', 'deflate'])('ranges that are compressed by %s', async (coding) => {
  const inspected = await inspectSource(url(coding), { worker }).catch((error: unknown) => error);
  if (isFirefox) expect(inspected).toMatchObject({ size: IMAGE_BYTES });
  else expectRefusal(inspected);
});

test.each(['gzip?whole', 'gzip?whole-hidden'])('the compressed image: %s', async (path) => {
  expectRefusal(await inspectSource(url(path), { worker }).catch((error: unknown) => error));
});

test('openDevice names the compression too', async () => {
  const opening = openDevice({ source: url('gzip?whole'), target: 'compressed', worker });
  expectRefusal(await opening.catch((error: unknown) => error));
});
