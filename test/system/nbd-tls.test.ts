/** TLS clients: with the right certificate, with one of another authority, without one, and without TLS. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runCommand } from '../cli/command.ts';
import { makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { certify, makeAuthority } from '../support/certificates.ts';
import { mustRun, runProgram, startServe } from '../support/programs.ts';
import { describeWith } from '../support/tools.ts';

interface Certificates {
  readonly directory: string;
  readonly serverFlags: readonly string[];
  /** Folders with the file names that libnbd and QEMU expect. */
  readonly right: string;
  readonly wrong: string;
  readonly absent: string;
}

async function makeCertificates(): Promise<Certificates> {
  const directory = temporaryDirectory();
  const [ours, theirs, absent] = ['ours', 'theirs', 'absent'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await makeAuthority(ours, 'our authority');
  await makeAuthority(theirs, 'another authority');
  await certify(ours, 'server', ours);
  await certify(ours, 'client', ours);
  // This client trusts our server, but the other authority issued its certificate.
  const wrong = join(directory, 'wrong');
  await certify(theirs, 'client', wrong);
  mkdirSync(absent);
  for (const folder of [wrong, absent]) await mustRun('cp', join(ours, 'ca-cert.pem'), folder);
  const serverFlags = [
    '--tls-cert',
    join(ours, 'server-cert.pem'),
    '--tls-key',
    join(ours, 'server-key.pem'),
    '--tls-ca',
    join(ours, 'ca-cert.pem'),
  ];
  return { directory, serverFlags, right: ours, wrong, absent };
}

describeWith(['openssl', 'nbdinfo', 'nbdcopy', 'qemu-img'], 'over TLS', () => {
  test('serves a client with the right certificate and refuses every other client', async () => {
    const { directory, serverFlags, right, wrong, absent } = await makeCertificates();
    const image = makeImage(directory);
    const { uri, stop } = await startServe(
      image,
      join(directory, 'disk'),
      '--port',
      '0',
      '--export',
      'boot',
      ...serverFlags,
    );
    expect(uri).toMatch(/^nbds:\/\/127\.0\.0\.1:\d+\/boot$/);
    const port = new URL(uri.replace('nbds', 'http')).port;

    const info = await mustRun('nbdinfo', '--json', `${uri}?tls-certificates=${right}`);
    expect(JSON.parse(info)).toMatchObject({ TLS: true, structured: true, exports: [{ 'export-name': 'boot' }] });
    const copied = join(directory, 'copied');
    await mustRun('nbdcopy', `${uri}?tls-certificates=${right}`, copied);
    await mustRun('cmp', image, copied);
    const credentials = `tls-creds-x509,id=tls,endpoint=client,dir=${right}`;
    const over = `driver=nbd,host=127.0.0.1,port=${port},export=boot,tls-creds=tls`;
    await mustRun(
      'qemu-img',
      'compare',
      '--object',
      credentials,
      '--image-opts',
      `driver=raw,file.${over.replaceAll(',', ',file.')}`,
      `driver=raw,file.filename=${image}`,
    );

    for (const certificates of [wrong, absent]) {
      const refused = await runProgram('nbdinfo', `${uri}?tls-certificates=${certificates}`);
      expect(refused.exitCode, refused.stdout).toBe(1);
      expect(refused.stdout).not.toContain('boot');
    }
    for (const plain of [`nbd://127.0.0.1:${port}/boot`, `nbd://127.0.0.1:${port}/`]) {
      const refused = await runProgram('nbdinfo', '--list', plain);
      expect(refused.exitCode, refused.stdout).toBe(1);
      expect(refused.stdout + refused.stderr).not.toContain('export-size');
    }
    await mustRun('nbdinfo', `${uri}?tls-certificates=${right}`);
    const { exitCode, stderr } = await stop();
    expect(exitCode, stderr).toBe(0);
  });

  test('without --tls-ca, accepts clients without a certificate, also over a Unix socket', async () => {
    const { directory, serverFlags, absent } = await makeCertificates();
    const { uri, stop } = await startServe(
      makeImage(directory),
      join(directory, 'disk'),
      '--socket',
      join(directory, 's'),
      ...serverFlags.slice(0, 4),
    );
    expect(uri).toMatch(/^nbds\+unix:/);
    const info = await mustRun('nbdinfo', '--json', `${uri}&tls-certificates=${absent}&tls-verify-peer=false`);
    expect(JSON.parse(info)).toMatchObject({ TLS: true });
    expect((await stop()).exitCode).toBe(0);
  });

  test('refuses invalid or mismatched certificates before it starts', async () => {
    const { directory, serverFlags, wrong } = await makeCertificates();
    const image = makeImage(directory);
    const disk = join(directory, 'disk');
    const refuse = async (flags: readonly string[], exitCode: number, says: string): Promise<void> => {
      const result = await runCommand(['serve', image, disk, '--port', '0', ...flags]);
      expect(result.stderr).toContain(says);
      expect(result.exitCode).toBe(exitCode);
      expect(result.stdout).toBe('');
      expect(result.stderr).toMatch(/^copyondemand: .+\n$/);
      expect((await runProgram('ls', directory)).stdout).not.toContain('disk');
    };
    const cert = ['--tls-cert', serverFlags[1]!];
    await refuse([...cert, '--tls-key', join(wrong, 'client-key.pem')], 2, 'do not match');
    await refuse([...cert, '--tls-key', image], 2, 'do not match');
    await refuse([...cert, '--tls-key', join(directory, 'none.pem')], 1, 'COD_NOT_FOUND');
    await refuse([...serverFlags.slice(0, 4), '--tls-ca', directory], 1, 'COD_TARGET_IO');
  });
});
