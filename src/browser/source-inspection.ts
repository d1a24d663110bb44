/** What a source is, asked by a worker of its own: the page's file then needs no HTTP client. */

import { type FromWorker, fromWire, type ToWorker } from './messages.ts';
import { receive } from './port.ts';
import { type BrowserSource, describeSource, type ImageFormat } from './source-description.ts';
import { checkPage, startWorker } from './worker-start.ts';

/** The size of a disk, and the name of its content. */
export interface SourceInspection {
  /** Bytes of the disk. */
  readonly size: number;
  /** Names the content, for example by ETag. Undefined if the source does not name it. */
  readonly identity: string | undefined;
}

/** As `inspectSource` of `copyondemand/browser`, with a worker of `makeWorker`. */
export async function inspectByWorker(
  source: BrowserSource,
  format: ImageFormat | undefined,
  makeWorker: () => Worker,
): Promise<SourceInspection> {
  checkPage();
  const description = describeSource(source);
  let worker: Worker | undefined;
  try {
    return await new Promise((resolve, reject) => {
      worker = startWorker(makeWorker, reject);
      receive<FromWorker>(worker, (message) => {
        if (message.kind === 'inspected') resolve(message.inspection);
        else if (message.kind === 'failed') reject(fromWire(message.error));
      });
      worker.postMessage([{ kind: 'inspect', source: description, format } satisfies ToWorker]);
    });
  } finally {
    worker?.terminate();
  }
}
