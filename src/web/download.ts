/** Saves a copy as a file of the user. Of a partial copy the user hears first what is missing. */

import { copyAsFile } from '../browser.ts';
import { placeOf } from './copies.ts';
import { el, saveBlob } from './dom.ts';
import { formatBytes, formatShare } from './units.ts';

export interface Downloadable {
  readonly id: string;
  readonly name: string;
  readonly size: number;
  readonly syncedBytes: number;
}

/** @throws {@link CodError} as {@link copyAsFile}. */
export async function downloadCopy({ id, name, size, syncedBytes }: Downloadable): Promise<void> {
  // The copy is the disk, whatever it was packed in.
  const disk = name.replace(/\.qcow2$/i, '.raw');
  const missing = size - syncedBytes;
  if (missing > 0 && !(await confirmed(missing, size))) return;
  saveBlob(await copyAsFile(placeOf(id)), missing > 0 ? `${disk}.partial` : disk);
}

function confirmed(missing: number, size: number): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog: HTMLDialogElement = el(
      'dialog',
      {
        'aria-labelledby': 'partial-title',
        onclose: () => {
          dialog.remove();
          resolve(dialog.returnValue === 'save');
        },
      },
      el(
        'form',
        { method: 'dialog' },
        el('h2', { id: 'partial-title' }, 'The copy is not complete'),
        el(
          'p',
          {},
          `${formatBytes(missing)} of ${formatBytes(size)} are missing (${formatShare(missing, size)}). ` +
            'They are zeros in the file, so files and volumes in it may be damaged.',
        ),
        el(
          'div',
          { class: 'actions' },
          el('button', { value: 'cancel', autofocus: true }, 'Cancel'),
          el('button', { value: 'save', class: 'primary' }, 'Download what is here'),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
