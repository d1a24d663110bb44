/** A Ceph of one node on loopback (ceph.sh), with requests to its radosgw that are signed by other code than ours. */

import { createHash, createHmac } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { mustRun, runProgram } from './programs.ts';

/** The programs that it needs. */
export const CEPH_TOOLS: readonly string[] = [
  'ceph-mon',
  'ceph-osd',
  'ceph-mgr',
  'radosgw',
  'radosgw-admin',
  'ceph',
  'rbd',
  'monmaptool',
  'ceph-authtool',
];

/** QEMU's driver for RBD, which is a package of its own. */
export const RBD_DRIVER: string | undefined = [
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib64',
  '/usr/lib',
]
  .map((folder) => join(folder, 'qemu/block-rbd.so'))
  .find((path) => existsSync(path));

const SCRIPT = join(import.meta.dirname, 'ceph.sh');

export interface S3Keys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** A daemon that {@link Ceph.kill} ends as a crash does. */
export type CephDaemon = 'client.rgw' | 'osd.0';

export class Ceph {
  readonly keys: S3Keys;
  /** The origin of S3. */
  readonly origin: string;
  readonly #folder: string;

  private constructor(keys: S3Keys, origin: string, folder: string) {
    this.keys = keys;
    this.origin = origin;
    this.#folder = folder;
  }

  /** Starts it, in half a minute. */
  static async start(keys: S3Keys): Promise<Ceph> {
    // Unix sockets need a short path.
    const folder = mkdtempSync(join(tmpdir(), 'cod-ceph-'));
    const started = await mustRun('bash', SCRIPT, 'start', folder, keys.accessKeyId, keys.secretAccessKey);
    return new Ceph(keys, /^http:\S+$/m.exec(started)![0], folder);
  }

  async stop(): Promise<void> {
    await runProgram('bash', SCRIPT, 'stop', this.#folder);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Path of its configuration. */
  get configuration(): string {
    return join(this.#folder, 'ceph.conf');
  }

  kill(daemon: CephDaemon): Promise<string> {
    return mustRun('bash', SCRIPT, 'kill', this.#folder, daemon);
  }

  revive(daemon: CephDaemon): Promise<string> {
    return mustRun('bash', SCRIPT, 'revive', this.#folder, daemon);
  }

  /** Creates a bucket or an object. */
  async put(path: string, body: Uint8Array, acl?: 'public-read'): Promise<void> {
    const time = timeOf(Date.now());
    const hash = createHash('sha256').update(body).digest('hex');
    const signed = {
      host: new URL(this.origin).host,
      ...(acl !== undefined && { 'x-amz-acl': acl }),
      'x-amz-content-sha256': hash,
      'x-amz-date': time,
    };
    const { host: _, ...sent } = signed;
    const names = Object.keys(signed).join(';');
    const headers = Object.entries(signed)
      .map(([name, value]) => `${name}:${value}\n`)
      .join('');
    const signature = signatureOf(`PUT\n${path}\n\n${headers}\n${names}\n${hash}`, time, this.keys.secretAccessKey);
    const credential = `Credential=${this.keys.accessKeyId}/${scopeOf(time)}`;
    const authorization = `AWS4-HMAC-SHA256 ${credential}, SignedHeaders=${names}, Signature=${signature}`;
    const response = await fetch(this.origin + path, {
      method: 'PUT',
      headers: { ...sent, authorization },
      body: Buffer.from(body),
    });
    expect(`${response.status} ${await response.text()}`).toBe('200 ');
  }

  /** Returns a URL for an object that is signed at `atMs`, and expires after `seconds`. */
  presigned(path: string, atMs: number, seconds: number, keys: S3Keys = this.keys): string {
    const time = timeOf(atMs);
    const query = new URLSearchParams({
      'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
      'X-Amz-Credential': `${keys.accessKeyId}/${scopeOf(time)}`,
      'X-Amz-Date': time,
      'X-Amz-Expires': String(seconds),
      'X-Amz-SignedHeaders': 'host',
    });
    const canonical = `GET\n${path}\n${query}\nhost:${new URL(this.origin).host}\n\nhost\nUNSIGNED-PAYLOAD`;
    query.set('X-Amz-Signature', signatureOf(canonical, time, keys.secretAccessKey));
    return `${this.origin}${path}?${query}`;
  }

  /** Gives the user another key, or takes it away. */
  async changeKey(what: 'create' | 'rm', { accessKeyId, secretAccessKey }: S3Keys): Promise<void> {
    const secret = what === 'create' ? [`--secret-key=${secretAccessKey}`] : [];
    const of = ['--uid=t', '--key-type=s3', `--access-key=${accessKeyId}`, ...secret];
    await mustRun('radosgw-admin', '-c', this.configuration, 'key', what, ...of);
  }

  /** The bytes of objects that radosgw has sent since its start, by its own count. */
  async sentBytes(): Promise<number> {
    const socket = join(this.#folder, 'run/client.rgw.asok');
    const counters = JSON.parse(await mustRun('ceph', '--admin-daemon', socket, 'perf', 'dump', 'rgw')) as {
      readonly rgw: { readonly get_b: number };
    };
    return counters.rgw.get_b;
  }

  /** Makes an image of RBD, in a pool that is created for the first one. Returns its name for QEMU. */
  async createBlockDevice(name: string, content: Uint8Array | number): Promise<string> {
    const conf = ['-c', this.configuration];
    await mustRun('ceph', ...conf, 'osd', 'pool', 'create', 'rbd', '8');
    if (typeof content === 'number') await mustRun('rbd', ...conf, 'create', name, '--size', `${content}B`);
    else {
      const file = join(this.#folder, 'import');
      writeFileSync(file, content);
      await mustRun('rbd', ...conf, '-p', 'rbd', 'import', file, name);
      rmSync(file);
    }
    return `rbd:rbd/${name}:conf=${this.configuration}`;
  }
}

function signatureOf(canonical: string, time: string, secret: string): string {
  const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const key = scopeOf(time).split('/').reduce<string | Buffer>(hmac, `AWS4${secret}`);
  const hash = createHash('sha256').update(canonical).digest('hex');
  return hmac(key, `AWS4-HMAC-SHA256\n${time}\n${scopeOf(time)}\n${hash}`).toString('hex');
}

function scopeOf(time: string): string {
  return `${time.slice(0, 8)}/us-east-1/s3/aws4_request`;
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d+/g, '');
}
