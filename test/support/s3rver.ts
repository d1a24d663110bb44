/** s3rver: a server for S3 that others wrote. It verifies signatures, but neither their region nor their token. */

// @ts-expect-error: it has no types
import S3rver from '@20minutes/s3rver';
import { onTestFinished } from 'vitest';
import { temporaryDirectory } from '../cli/temporary.ts';

interface Server {
  run(): Promise<{ readonly port: number }>;
  close(): Promise<void>;
}

const make: new (options: Readonly<Record<string, unknown>>) => Server = S3rver;

/** The only user of s3rver. */
export const S3RVER_KEYS: { readonly accessKeyId: string; readonly secretAccessKey: string } = {
  accessKeyId: 'S3RVER',
  secretAccessKey: 'S3RVER',
};

/** Starts s3rver with an empty bucket, `images`. It ends with the test. */
export async function startS3rver(): Promise<{
  readonly origin: string;
  /** Makes an object, or replaces it. The path is percent-encoded. */
  put(path: string, body: Uint8Array): Promise<void>;
}> {
  const server = new make({
    address: '127.0.0.1',
    port: 0,
    silent: true,
    directory: temporaryDirectory(),
    configureBuckets: [{ name: 'images' }],
  });
  const { port } = await server.run();
  onTestFinished(() => server.close());
  const origin = `http://127.0.0.1:${port}`;
  return {
    origin,
    async put(path, body) {
      // It takes requests without a signature.
      const { status } = await fetch(`${origin}/images/${path}`, { method: 'PUT', body: Buffer.from(body) });
      if (status !== 200) throw new Error(`s3rver does not take the object: ${status}`);
    },
  };
}
