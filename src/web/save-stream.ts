/** Saves bytes as a file of the user while they are read, without holding them in memory where the browser can. */

import { saveBlob } from './dom.ts';
import { formatBytes } from './units.ts';

/** Chromium's dialog, which Firefox and Safari do not have. */
type SavePicker = (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;

/** From this size on, the user chooses a file where the browser can write into one. */
const PICKED_BYTES = 2 ** 28;
/** Every browser accepts a blob of this size. */
const MAX_BLOB_BYTES = 2 ** 32;

/** Where {@link saveStream} saves. `undefined`: among the browser's downloads. */
export type SavePlace = FileSystemFileHandle | undefined;

/** Returns the browser's dialog for a file of `bytes`, if it has one and the size is worth it. */
function pickerFor(bytes: number): SavePicker | undefined {
  const { showSaveFilePicker } = window as { showSaveFilePicker?: SavePicker };
  return bytes < PICKED_BYTES ? undefined : showSaveFilePicker?.bind(window);
}

/** Whether {@link chooseSavePlace} shows a dialog, so that it has to be called by a click. */
export function needsChoice(bytes: number): boolean {
  return pickerFor(bytes) !== undefined;
}

/**
 * Lets the user choose a file, for a large one, if the browser can write into files.
 * @throws DOMException named `AbortError` when the user cancels; RangeError when the browser cannot save so much.
 */
export async function chooseSavePlace(name: string, bytes: number): Promise<SavePlace> {
  const picker = pickerFor(bytes);
  if (picker !== undefined) return picker({ suggestedName: name });
  if (bytes > MAX_BLOB_BYTES)
    throw new RangeError(
      `this browser saves at most ${formatBytes(MAX_BLOB_BYTES)} at once: use Chromium, or download the whole image`,
    );
  return undefined;
}

/** Saves the pieces in their order. If they end with an error, nothing is saved. */
export async function saveStream(place: SavePlace, name: string, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  if (place === undefined) {
    // The browser collects the body of a response on its disk if it is large.
    saveBlob(await new Response(streamOf(pieces)).blob(), name);
    return;
  }
  const file = await place.createWritable();
  try {
    for await (const piece of pieces) await file.write(piece as Uint8Array<ArrayBuffer>);
    await file.close();
  } catch (error) {
    await file.abort().catch(() => undefined);
    throw error;
  }
}

function streamOf(pieces: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const iterator = pieces[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value as Uint8Array<ArrayBuffer>);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}
