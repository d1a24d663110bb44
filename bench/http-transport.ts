/**
 * The two HTTP transports beside `curl -o`: one long range from nginx on loopback into a file.
 *
 *   node bench/http-transport.mjs [--size MIB] [--rounds N] [--json]
 *
 * Times are wall-clock, from a command's start to its exit. Rounds are interleaved, figures are medians, and only
 * ratios within one run are meaningful. Needs nginx and curl. Exits with 1 if undici is slower than 0.9 × curl.
 */

import { spawn, spawnSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { chmodSync, closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';

const BAR = 0.9;
const PORT = 18_094;

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});
// This file runs as a bundle in another folder. `argv[1]` is the script that was started, in bench/.
const sources = join(dirname(process.argv[1]!), '../src/sources');
const mebibytes = Number(options.size);

const folder = mkdtempSync(join(tmpdir(), 'http-transport-'));
// nginx's workers run as another user.
chmodSync(folder, 0o755);
const url = `http://127.0.0.1:${PORT}/disk.img`;
const copy = join(folder, 'copy.img');

const nginx = startNginx();
try {
  writeImage(join(folder, 'disk.img'));
  await bundle('fetchTransport', 'fetch-transport.ts', 'fetch.mjs');
  await bundle('nodeTransport', 'node-transport.ts', 'node.mjs');
  await answering();
  const commands: [string, string[]][] = [
    ['curl -o', ['curl', '-s', '-o', copy, url]],
    ['undici', [process.execPath, join(folder, 'node.mjs'), url, copy]],
    ['fetch', [process.execPath, join(folder, 'fetch.mjs'), url, copy]],
  ];
  const seconds = new Map<string, number[]>(commands.map(([name]) => [name, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const [name, command] of commands) seconds.get(name)!.push(timed(command));
  }
  const curl = median(seconds.get('curl -o')!);
  const results = commands.map(([name]) => {
    const time = median(seconds.get(name)!);
    return {
      name,
      megabytesPerSecond: Math.round((mebibytes * 1.048576) / time),
      ratio: Math.round((100 * curl) / time) / 100,
    };
  });
  if (options.json) console.log(JSON.stringify({ mebibytes, results }));
  else
    for (const result of results)
      console.log(`${result.name.padEnd(10)} ${result.megabytesPerSecond} MB/s, ${result.ratio} of curl`);
  if (results[1]!.ratio < BAR) process.exitCode = 1;
} finally {
  nginx.kill();
  rmSync(folder, { recursive: true });
}

function writeImage(path: string): void {
  const piece = randomFillSync(new Uint8Array(1 << 20));
  const file = openSync(path, 'w');
  for (let written = 0; written < mebibytes; written++) writeSync(file, piece);
  closeSync(file);
}

async function bundle(transport: string, module: string, output: string): Promise<void> {
  const contents = `
    import { open } from 'node:fs/promises';
    import { httpSource } from ${JSON.stringify(join(sources, 'http/source.ts'))};
    import { ${transport} } from ${JSON.stringify(join(sources, 'http', module))};
    const [url, path] = process.argv.slice(2);
    const source = await httpSource(url, { transport: ${transport}() }), file = await open(path, 'w');
    let at = 0;
    for await (const piece of source.stream(0, source.size)) {
      await file.write(piece, 0, piece.length, at);
      at += piece.length;
    }
    await file.close();
    await source.close();`;
  await build({
    stdin: { contents, resolveDir: folder },
    bundle: true,
    platform: 'node',
    format: 'esm',
    outfile: join(folder, output),
    // undici is CommonJS.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    logLevel: 'error',
  });
}

function startNginx() {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    .join(' ');
  writeFileSync(
    join(folder, 'nginx.conf'),
    `worker_processes 2; pid ${folder}/pid; error_log ${folder}/error; daemon off; events {}
     http { access_log off; sendfile on; tcp_nopush on; ${temporary}
       server { listen 127.0.0.1:${PORT}; root ${folder}; } }`,
  );
  return spawn('nginx', ['-c', join(folder, 'nginx.conf')], { stdio: 'ignore' });
}

async function answering(): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const answer = await fetch(url, { method: 'HEAD' }).catch(() => undefined);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('nginx does not respond: check that it is installed');
}

function timed([program = '', ...args]: string[]): number {
  rmSync(copy, { force: true });
  const start = performance.now();
  const { status } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new Error(`${program} ended with ${status}`);
  return (performance.now() - start) / 1000;
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
