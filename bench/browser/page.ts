/** The page of the benchmark: functions that bench/browser.mjs calls by name. */

import type { BrowserDevice } from '../../src/browser.ts';

const library = '/dist/browser.js';
const { openDevice, removeCopy, copyAsFile } = (await import(library)) as typeof import('../../src/browser.ts');

const startWorker = (name: string): Worker => new Worker(`/${name}.js`, { type: 'module' });

/** Sends a message and resolves to the reply. Rejects if the worker fails. */
function ask<T>(worker: Worker, message: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data as T);
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(message);
  });
}

/** Returns the ms of a plain fetch: with a BYOB reader and a buffer of `pieceBytes`, or with the default reader. */
async function plain(url: string, pieceBytes?: number): Promise<number> {
  const start = performance.now();
  const worker = startWorker('fetch-worker');
  await ask(worker, { url, name: 'plain.img', pieceBytes });
  const elapsed = performance.now() - start;
  worker.terminate();
  const root = await navigator.storage.getDirectory();
  // The file stays locked until the worker has ended.
  for (;;) {
    try {
      await root.removeEntry('plain.img');
      return elapsed;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Returns the ms from open to a complete durable copy, and with `digest` the copy's SHA-256. */
async function hydrate(url: string, options: { digest: boolean }): Promise<{ ms: number; sha256?: string }> {
  const start = performance.now();
  const device = await openDevice({ source: url, target: 'copy.img', persist: false });
  await device.hydrated;
  const ms = performance.now() - start;
  await device.close();
  let sha256: string | undefined;
  if (options.digest) {
    const file = await copyAsFile({ target: 'copy.img' });
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()));
    sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  }
  await removeCopy({ target: 'copy.img' });
  return { ms, ...(sha256 === undefined ? {} : { sha256 }) };
}

const READ_BYTES = 4096;
let device: BrowserDevice;
let echo: Worker;

/** Hydrates the device that {@link reads} uses. */
async function prepareReads(url: string): Promise<void> {
  device = await openDevice({ source: url, target: 'reads.img', persist: false });
  await device.hydrated;
  echo = startWorker('echo-worker');
}

/** Returns the µs per call, with `depth` calls in flight. */
async function microseconds(count: number, depth: number, call: (index: number) => Promise<unknown>): Promise<number> {
  let begun = 0;
  const start = performance.now();
  const runner = async (): Promise<void> => {
    while (begun < count) await call(begun++);
  };
  await Promise.all(Array.from({ length: depth }, runner));
  return ((performance.now() - start) * 1000) / count;
}

/** Returns the µs per read of 4 KiB. */
async function reads(count: number, depth: number): Promise<number> {
  const into = Array.from({ length: depth }, () => new Uint8Array(READ_BYTES));
  const blocks = device.size / READ_BYTES;
  return microseconds(count, depth, (index) =>
    device.read(into[index % depth]!, ((index * 7919) % blocks) * READ_BYTES),
  );
}

/** Returns the µs per message with 4 KiB to a worker and back. */
async function roundTrips(count: number, depth: number): Promise<number> {
  const waiting = new Map<number, (buffer: ArrayBuffer) => void>();
  echo.onmessage = ({ data }: MessageEvent<{ id: number; bytes: ArrayBuffer }>) => waiting.get(data.id)!(data.bytes);
  const buffers = Array.from({ length: depth }, () => new ArrayBuffer(READ_BYTES));
  return microseconds(count, depth, async (id) => {
    const bytes = buffers.pop()!;
    buffers.push(
      await new Promise((resolve) => {
        waiting.set(id, resolve);
        echo.postMessage({ id, bytes }, [bytes]);
      }),
    );
    waiting.delete(id);
  });
}

async function finishReads(): Promise<void> {
  echo.terminate();
  await device.close();
  await removeCopy({ target: 'reads.img' });
}

let core: Worker | undefined;

/** Returns the ms of a case of the core. A name prepares that case; without one the prepared case runs again. */
async function timeCore(name?: string): Promise<number> {
  if (name !== undefined) {
    core?.terminate();
    core = startWorker('core-worker');
  }
  return ask(core!, name);
}

Object.assign(globalThis, { bench: { plain, hydrate, prepareReads, reads, roundTrips, finishReads, timeCore } });
