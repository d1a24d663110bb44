import { afterEach, expect, test, vi } from 'vitest';
import { chooseSavePlace, needsChoice, saveStream } from '../../src/web/save-stream.ts';

afterEach(() => {
  vi.unstubAllGlobals();
});

const LARGE = 2 ** 30;

/** A file that the user has picked, as far as it is used here. */
function pickedFile(): { handle: FileSystemFileHandle; written: Uint8Array[]; ends: string[] } {
  const written: Uint8Array[] = [];
  const ends: string[] = [];
  const stream = {
    write: async (piece: Uint8Array) => void written.push(piece),
    close: async () => void ends.push('closed'),
    abort: async () => void ends.push('aborted'),
  };
  return { handle: { createWritable: async () => stream } as unknown as FileSystemFileHandle, written, ends };
}

test('a large file is written piece by piece into a file that the user picks', async () => {
  const { handle, written, ends } = pickedFile();
  const showSaveFilePicker = vi.fn(async () => handle);
  vi.stubGlobal('window', { showSaveFilePicker });
  expect([needsChoice(1000), needsChoice(LARGE)]).toEqual([false, true]);
  expect(await chooseSavePlace('small', 1000)).toBeUndefined();
  const place = await chooseSavePlace('large.bin', 2 ** 50);
  expect(showSaveFilePicker).toHaveBeenCalledExactlyOnceWith({ suggestedName: 'large.bin' });
  await saveStream(
    place,
    'large.bin',
    (async function* () {
      yield Uint8Array.of(1, 2);
      yield Uint8Array.of(3);
    })(),
  );
  expect([written, ends]).toEqual([[Uint8Array.of(1, 2), Uint8Array.of(3)], ['closed']]);
});

test('a picked file is not changed if the pieces end with an error', async () => {
  const { handle, ends } = pickedFile();
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield Uint8Array.of(1);
    throw new Error('the source is away');
  };
  await expect(saveStream(handle, 'x', failing())).rejects.toThrow('the source is away');
  expect(ends).toEqual(['aborted']);
});

test('a browser without the dialog saves up to 4 GiB, and says so beyond', async () => {
  vi.stubGlobal('window', {});
  expect(needsChoice(LARGE)).toBe(false);
  expect(await chooseSavePlace('x', LARGE)).toBeUndefined();
  await expect(chooseSavePlace('x', 2 ** 33)).rejects.toThrow('this browser saves at most 4 GiB at once');
});
