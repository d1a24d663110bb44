/**
 * Starts a worker in a page, or says why it does not start. The browser gives no reason, so the URL is noted here. Only
 * the constructor knows it: bundlers find a worker by the words `new Worker(new URL(…))`, and put in a URL of theirs.
 */

import { CodError } from '../errors.ts';
import { NO_ORIGIN } from '../fs/opfs-refusal.ts';

/** Less than the time that a worker has to start. */
const EXPLAINING_MS = 5000;

/** @throws {@link CodError} COD_UNSUPPORTED outside of a page. */
export function checkPage(): void {
  if (globalThis.document === undefined)
    throw unsupported('copyondemand/browser works in a page only: call it there, not on a server and not in a worker');
}

/**
 * Calls `make`, which makes a worker. A script of another origin, such as a CDN, is imported by a worker of the page's
 * origin, since browsers do not start it directly.
 *
 * @param onFailed called with COD_UNSUPPORTED if the script does not start
 * @throws {@link CodError} COD_UNSUPPORTED if Trusted Types refuse the worker
 */
export function startWorker(make: () => Worker, onFailed: (error: CodError) => void): Worker {
  const { Worker } = globalThis;
  let url = '';
  function NotingWorker(script: string | URL, options?: WorkerOptions): Worker {
    const address = new URL(script, document.baseURI);
    url = address.href;
    try {
      return new Worker(address.origin === origin ? script : importing(url, options), options);
    } catch (cause) {
      if (!(cause instanceof TypeError)) throw cause;
      const remedy = 'make a default policy, or pass `worker` with a TrustedScriptURL';
      throw unsupported(`Trusted Types refuse the worker ${url}: ${remedy}`, cause);
    }
  }
  globalThis.Worker = NotingWorker as unknown as typeof Worker;
  try {
    const worker = make();
    let started = false;
    worker.addEventListener('message', () => (started = true), { once: true });
    worker.addEventListener('error', async (event) => {
      if (started) return;
      event.preventDefault();
      const why = event.message || (await whyNot(url));
      onFailed(unsupported(`the worker ${url} cannot start: ${why}`));
    });
    return worker;
  } finally {
    globalThis.Worker = Worker;
  }
}

/** Returns the URL of a script of this origin that loads the one at `url`. */
function importing(url: string, options: WorkerOptions | undefined): string {
  const quoted = JSON.stringify(url);
  // A dynamic import would lose the messages that arrive before it ends.
  const code = options?.type === 'module' ? `import${quoted}` : `importScripts(${quoted})`;
  return URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
}

/** Returns why a script did not start, and the remedy. */
async function whyNot(url: string): Promise<string> {
  if (origin === 'null') return NO_ORIGIN;
  try {
    const { ok, status, headers } = await fetch(url, { signal: AbortSignal.timeout(EXPLAINING_MS) });
    const type = headers.get('content-type');
    if (!ok || !type?.includes('javascript'))
      return `the server sends ${status} ${type} instead of JavaScript; see "Bundlers" in docs/BROWSER.md`;
    return 'a policy or an import in it fails; see "Policies" and "Bundlers" in docs/BROWSER.md';
  } catch {
    return 'the page cannot fetch it; check that its server runs and allows this page (CORS)';
  }
}

function unsupported(message: string, cause?: unknown): CodError {
  return new CodError('COD_UNSUPPORTED', message, { cause });
}
