/**
 * `npm run web [-- --serve] [--port 8080] [--images FOLDER] [--out FOLDER] [--no-samples]`: builds the page into
 * `dist/web`.
 *
 * The page is static files only, with sample images unless --no-samples is given. --serve serves it on this machine,
 * with the images of FOLDER beside it.
 */
import { copyFileSync, createReadStream, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { basename, extname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { addSamples } from './lib/page-images.mjs';
import { ensureBuilt, ensureInstalled, root, StepError, say, script } from './lib/steps.mjs';

const DEFAULT_PORT = 8080;

/**
 * @param {string} outdir
 * @param {{ samples: boolean }} options
 */
async function buildPage(outdir, { samples }) {
  const { build } = await import('esbuild');
  const sources = join(root, 'src', 'web');
  rmSync(outdir, { recursive: true, force: true });
  mkdirSync(outdir, { recursive: true });
  await build({
    absWorkingDir: root,
    entryPoints: [join(sources, 'main.ts'), join(sources, 'style.css')],
    outdir,
    bundle: true,
    // What few users need is loaded when they need it.
    splitting: true,
    minify: true,
    format: 'esm',
    target: ['es2022', 'chrome123', 'firefox120', 'safari17.5'],
    platform: 'browser',
    logLevel: 'warning',
  });
  const page = readFileSync(join(sources, 'index.html'), 'utf8');
  writeFileSync(
    join(outdir, 'index.html'),
    addPc(outdir) ? page.replace('<div id="app"', '<div id="app" data-pc="v86"') : page,
  );
  for (const name of ['browser-worker.js', 'browser-qcow2.js'])
    copyFileSync(join(root, 'dist', name), join(outdir, name));
  // The page shows the images that this list names.
  writeFileSync(join(outdir, 'images.json'), JSON.stringify({ samples: samples ? addSamples(outdir) : [] }));
}

/**
 * Returns the page's list of images, with the files of a folder.
 * @param {string} page
 * @param {string} folder
 */
async function listImages(page, folder) {
  const files = [];
  const collator = new Intl.Collator('en', { numeric: true });
  for (const name of (await readdir(folder)).sort(collator.compare)) {
    const stats = await stat(join(folder, name)).catch(() => undefined);
    if (stats?.isFile() && !name.startsWith('.'))
      files.push({ url: `images/${encodeURIComponent(name)}`, size: stats.size });
  }
  return JSON.stringify({ ...JSON.parse(readFileSync(join(page, 'images.json'), 'utf8')), folder: files });
}

/**
 * Adds v86 and a BIOS to the page, if Debian's package `seabios` is installed: no npm package has a BIOS.
 * @param {string} outdir
 */
function addPc(outdir) {
  const emulator = join(root, 'node_modules', 'v86', 'build');
  /** @type {Record<string, string>} */
  const files = {
    'libv86.mjs': join(emulator, 'libv86.mjs'),
    'v86.wasm': join(emulator, 'v86.wasm'),
    'bios.bin': '/usr/share/seabios/bios.bin',
    'vgabios.bin': '/usr/share/seabios/vgabios-stdvga.bin',
  };
  if (!Object.values(files).every((path) => existsSync(path))) {
    say('the page has no PC: install the package seabios to boot images');
    return false;
  }
  mkdirSync(join(outdir, 'v86'));
  for (const [name, path] of Object.entries(files)) copyFileSync(path, join(outdir, 'v86', name));
  return true;
}

/** @type {Record<string, string>} */
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
  '.css': 'text/css',
  '.json': 'application/json',
};

/**
 * Serves the page, and the files of a folder under /images/, with ranges.
 * @param {string} page
 * @param {string | undefined} images
 * @param {number} port
 */
function serve(page, images, port) {
  /** @param {import('node:http').IncomingMessage} request @param {import('node:http').ServerResponse} response */
  const answer = async (request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
    if (images !== undefined && path === '/images.json') {
      response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-cache' });
      response.end(await listImages(page, images));
      return;
    }
    const [, start = ''] = /^\/(v86|samples|images)\//.exec(path) ?? [];
    const folder = start === 'images' ? images : join(page, start);
    // Only files directly in these folders: `basename` keeps a path from leaving them.
    const file = join(folder ?? page, path === '/' ? 'index.html' : basename(path));
    const stats = await stat(file).catch(() => undefined);
    if (!stats?.isFile()) {
      response.writeHead(404).end();
      return;
    }
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const first = Number(range?.[1] ?? 0);
    const end = Math.min(stats.size - 1, range?.[2] ? Number(range[2]) : stats.size - 1);
    if (range && first > end) {
      response.writeHead(416, { 'content-range': `bytes */${stats.size}` }).end();
      return;
    }
    response.writeHead(range ? 206 : 200, {
      'content-type': TYPES[extname(file)] ?? 'application/octet-stream',
      'content-length': Math.max(0, end - first + 1),
      'cache-control': 'no-cache',
      'accept-ranges': 'bytes',
      etag: `"${stats.size}-${stats.mtimeMs}"`,
      ...(range ? { 'content-range': `bytes ${first}-${end}/${stats.size}` } : {}),
    });
    if (request.method === 'HEAD' || stats.size === 0) response.end();
    else {
      const stream = createReadStream(file, { start: first, end });
      stream.on('error', () => response.destroy());
      response.on('close', () => stream.destroy());
      stream.pipe(response);
    }
  };
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  server.on('error', (error) => {
    say(error.message);
    process.exitCode = 1;
  });
  server.listen(port, '127.0.0.1', () => {
    const address = server.address();
    const actual = address !== null && typeof address === 'object' ? address.port : port;
    const url = `http://127.0.0.1:${actual}/`;
    say(`the page is at ${url}${images === undefined ? '' : `, and lists the images of ${images}`}`);
  });
}

await script(async () => {
  const options = /** @type {const} */ ({
    serve: { type: 'boolean' },
    port: { type: 'string' },
    images: { type: 'string' },
    out: { type: 'string' },
    'no-samples': { type: 'boolean' },
  });
  let values;
  try {
    ({ values } = parseArgs({ options }));
  } catch (error) {
    throw new StepError(/** @type {Error} */ (error).message, '', 2);
  }
  const port = Number(values.port ?? DEFAULT_PORT);
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new StepError(`--port ${values.port} is not an integer from 0 to 65535`, '', 2);
  const from = process.env['INIT_CWD'] ?? process.cwd();
  const outdir = values.out === undefined ? join(root, 'dist', 'web') : resolve(from, values.out);
  await ensureInstalled();
  await ensureBuilt();
  await buildPage(outdir, { samples: !values['no-samples'] });
  say(`page built in ${outdir}`);
  if (values.serve) serve(outdir, values.images === undefined ? undefined : resolve(from, values.images), port);
});
