/** nginx on loopback. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { toolPath } from './tools.ts';

export interface Nginx {
  readonly url: string;
  /** Ends it, as a crash does. */
  kill(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/**
 * Starts nginx and waits until it answers.
 *
 * @param folder where it keeps its files
 * @param http what the block `http` holds, for this port
 */
export async function startNginx(folder: string, port: number, http: string): Promise<Nginx> {
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${folder}/${kind};`,
  );
  const configuration = join(folder, 'nginx.conf');
  writeFileSync(
    configuration,
    `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log notice; events {}
    http { ${paths.join(' ')} ${http} }`,
  );
  const child = spawn(toolPath('nginx')!, ['-c', configuration, '-e', `${folder}/error.log`], { stdio: 'ignore' });
  const ended = once(child, 'close');
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    const answer = await fetch(url).catch(() => undefined);
    await answer?.arrayBuffer();
    if (answer !== undefined) return { url, kill };
    if (child.exitCode !== null)
      throw new Error(`nginx ended with ${child.exitCode}: ${readFileSync(`${folder}/error.log`, 'utf8')}`);
  }
}
