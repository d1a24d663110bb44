/**
 * Whole copies beside other programs, in one run: from a file, from nbdkit over a socket, over HTTP on loopback, with a
 * latency, and with a limit of 50 MB/s for each connection.
 *
 *   node bench/copy.mjs [--size MIB] [--rounds N] [--latency MS] [--only file|nbd|http|slow|limited] [--json]
 *
 * Rounds are interleaved. Rates are medians of the wall-clock time from a command's start to its exit, with the
 * slowest and the fastest round. Our copy is durable at its exit, the others are not. Therefore a second figure adds a
 * `sync` of the target to theirs. Processor time and the largest resident memory are of the command and what it starts,
 * where GNU time is installed.
 *
 * Exits with 1 if a bar is missed. Skips programs that are not installed, and their bars. Needs `npm run build` first.
 */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { have, makeImage, median, slowServer } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '2048' },
    rounds: { type: 'string', default: '3' },
    latency: { type: 'string', default: '20' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

const TIME = '/usr/bin/time';
const timed = existsSync(TIME) ? [TIME, '-q', '-f', 'used %U %S %M'] : [];

/** Runs a command. Returns its time, its processor time and its peak of resident memory, or how it failed. */
function run(command, env) {
  const start = process.hrtime.bigint();
  const { status, stderr } = spawnSync('timeout', ['-k', '5', '120', ...timed, 'bash', '-c', command], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const text = stderr.toString().trim();
  const [, user, system, kib] = /used ([\d.]+) ([\d.]+) (\d+)$/.exec(text) ?? [];
  return {
    ...{ seconds, cpuSeconds: Number(user) + Number(system), peakMiB: Number(kib) / 1024 },
    failed: status === 0 ? undefined : `exit ${status}: ${text.slice(-200)}`,
  };
}

async function main() {
  const sizeMiB = Number(options.size);
  const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
  const image = join(folder, 'disk.img');
  const target = join(folder, 'copy.img');
  const children = [];
  try {
    makeImage(image, sizeMiB);
    const ours = (source) => `node "${cli}" copy --quiet "${source}" "$DST"`;
    const sized = `truncate -s ${sizeMiB}M "$DST"; `;

    const http = await startHttp(folder, image, children);
    const slow = await new Promise((resolve) => {
      const child = spawn(process.execPath, [slowServer, image, options.latency], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      children.push(child);
      child.stdout.once('data', (line) => resolve(`http://127.0.0.1:${String(line).trim()}/disk.img`));
    });

    const limited = http.replace('disk.img', 'limited/disk.img');
    const groups = {
      file: [
        ['ours', ours(image), 'node'],
        ['cp', 'cp --reflink=never --sparse=never "$SRC" "$DST"', 'cp'],
        ['qemu-img convert', 'qemu-img convert -f raw -O raw "$SRC" "$DST"', 'qemu-img'],
        ['nbdcopy', `${sized}nbdcopy "$SRC" "$DST"`, 'nbdcopy'],
        ['nbdcopy --flush', `${sized}nbdcopy --flush "$SRC" "$DST"`, 'nbdcopy'],
        ['nbdkit | nbdcopy', `${sized}nbdkit -U - file "$SRC" --run 'nbdcopy "$uri" "$DST"'`, 'nbdkit'],
      ],
      nbd: [
        ['ours', `nbdkit -U - file "$SRC" --run 'node "${cli}" copy --quiet "$uri" "$DST"'`, 'nbdkit'],
        ['nbdcopy --flush', `${sized}nbdkit -U - file "$SRC" --run 'nbdcopy --flush "$uri" "$DST"'`, 'nbdkit'],
        ['qemu-img convert', `nbdkit -U - file "$SRC" --run 'qemu-img convert -f raw -O raw "$uri" "$DST"'`, 'nbdkit'],
      ],
      http: [
        ['ours', ours(http), 'node'],
        ['curl', `curl -s -o "$DST" "${http}"`, 'curl'],
        ['qemu-img convert -m 1', `qemu-img convert -m 1 -f raw -O raw "${http}" "$DST"`, 'qemu-img'],
        ['nbdkit curl | nbdcopy', `${sized}nbdkit -U - curl "${http}" --run 'nbdcopy "$uri" "$DST"'`, 'nbdkit'],
        [
          'nbdkit curl, cow-on-read',
          `TMPDIR=${folder} nbdkit -U - --filter=cow curl "${http}" cow-on-read=true --run 'nbdcopy "$uri" null:'`,
          'nbdkit',
        ],
      ],
      slow: [
        ['ours', ours(slow), 'node'],
        ['curl', `curl -s -o "$DST" "${slow}"`, 'curl'],
        [
          'qemu-img, readahead 2M',
          `qemu-img convert -m 1 -O raw 'json:{"driver":"raw","file":{"driver":"http",` +
            `"url":"${slow}","readahead":2097152}}' "$DST"`,
          'qemu-img',
        ],
        [
          'nbdkit curl | nbdcopy 1M x 8',
          `${sized}nbdkit -U - -r curl "${slow}" --run 'nbdcopy -C 8 -R 8 --request-size=1048576 "$uri" "$DST"'`,
          'nbdkit',
        ],
      ],
      limited: [
        ['ours', ours(limited), 'node'],
        ['aria2c -x 8', `aria2c -q -x 8 -s 8 -k 1M --file-allocation=none -d / -o "$DST" "${limited}"`, 'aria2c'],
        ['curl', `curl -s -o "$DST" "${limited}"`, 'curl'],
      ],
    };
    // Only nginx has the limit.
    if (!hasNginx()) delete groups.limited;
    const bars = {
      file: [
        ['cp', 0.75],
        ['qemu-img convert', 1],
        ['nbdkit | nbdcopy', 1],
        ['nbdcopy --flush', 0.9],
      ],
      nbd: [['nbdcopy --flush', 0.95]],
      http: [
        ['curl', 0.9],
        ['qemu-img convert -m 1', 1],
        ['nbdkit curl | nbdcopy', 1],
        ['nbdkit curl, cow-on-read', 1],
      ],
      slow: [
        ['curl', 0.8],
        ['qemu-img, readahead 2M', 4],
        ['nbdkit curl | nbdcopy 1M x 8', 4],
      ],
      limited: [['aria2c -x 8', 0.85]],
    };

    const results = {};
    let missed = 0;
    for (const [group, tasks] of Object.entries(groups)) {
      if (options.only !== undefined && options.only !== group) continue;
      const present = tasks.filter(([, , program]) => have(program));
      const times = new Map(present.map(([name]) => [name, []]));
      const used = new Map(present.map(([name]) => [name, []]));
      const durableTimes = new Map(present.map(([name]) => [name, []]));
      for (let round = 0; round < Number(options.rounds); round++) {
        for (const [name, command] of present) {
          rmSync(target, { force: true });
          spawnSync('sync');
          const { seconds, failed, ...usage } = run(command, { SRC: image, DST: target });
          if (failed !== undefined) process.stderr.write(`${group}: ${name}: ${failed}\n`);
          else {
            times.get(name).push(seconds);
            used.get(name).push(usage);
            if (existsSync(target)) durableTimes.get(name).push(seconds + run('sync "$DST"', { DST: target }).seconds);
          }
          if (
            round === 0 &&
            failed === undefined &&
            !command.includes('null:') &&
            spawnSync('cmp', ['-s', image, target]).status !== 0
          ) {
            process.stderr.write(`${group}: ${name}: the copy differs from the source\n`);
            missed++;
          }
        }
      }
      const speed = (name, of = times) =>
        of.get(name)?.length ? (sizeMiB * 1.048576) / median(of.get(name)) : undefined;
      const least = new Map(bars[group]);
      const rounded = (number, digits = 0) => (number === undefined ? undefined : Number(number.toFixed(digits)));
      const rate = (seconds) => rounded((sizeMiB * 1.048576) / seconds);
      results[group] = {};
      for (const [name] of present) {
        if (speed(name) === undefined) continue;
        const ratio = (speed('ours') ?? 0) / speed(name);
        const isMissed = ratio < (least.get(name) ?? 0);
        if (isMissed) missed++;
        const durable = name === 'ours' ? undefined : speed(name, durableTimes);
        results[group][name] = {
          ...{ 'MB/s': rounded(speed(name)), slowest: rate(Math.max(...times.get(name))) },
          ...{ fastest: rate(Math.min(...times.get(name))), 'ours / it': rounded(ratio, 2) },
          ...{ bar: isMissed ? `${least.get(name)}, missed` : least.get(name) },
          ...{ synced: rounded(durable), 'ours / synced': rounded(durable && speed('ours') / durable, 2) },
          'CPU s': rounded(median(used.get(name).map(({ cpuSeconds }) => cpuSeconds)), 2),
          'peak MiB': rounded(median(used.get(name).map(({ peakMiB }) => peakMiB))),
        };
      }
    }
    if (options.json) process.stdout.write(`${JSON.stringify(results)}\n`);
    else
      for (const [group, rows] of Object.entries(results)) {
        console.log(`${group}:`);
        console.table(rows);
      }
    process.exitCode = missed > 0 ? 1 : 0;
  } finally {
    for (const child of children) child.kill();
    truncateSync(image, 0);
    rmSync(folder, { recursive: true, force: true });
  }
}

function hasNginx() {
  return have('nginx') || existsSync('/usr/sbin/nginx');
}

/** Starts nginx, the fastest server at hand. Without nginx: slow-server.mjs without latency. */
async function startHttp(folder, image, children) {
  if (!hasNginx()) {
    const child = spawn(process.execPath, [slowServer, image, '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    return new Promise((resolve) =>
      child.stdout.once('data', (line) => resolve(`http://127.0.0.1:${String(line).trim()}/disk.img`)),
    );
  }
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const conf = join(folder, 'nginx.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    .join(' ');
  writeFileSync(
    conf,
    `worker_processes 2; pid ${folder}/nginx.pid; error_log ${folder}/nginx.err; daemon off; user root;
events { worker_connections 512; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; ${temporary}
server { listen 127.0.0.1:${port}; root ${folder}; default_type application/octet-stream;
location /limited/ { alias ${folder}/; limit_rate 50m; } } }`,
  );
  const child = spawn('nginx', ['-c', conf], {
    stdio: ['ignore', 'ignore', 'ignore'],
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  });
  children.push(child);
  const url = `http://127.0.0.1:${port}/disk.img`;
  for (let attempt = 0; attempt < 200; attempt++) {
    if ((await fetch(url, { method: 'HEAD' }).catch(() => undefined))?.ok) return url;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error('nginx does not respond: check that it is installed');
}

await main();
