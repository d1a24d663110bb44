/** The list of the copies that this browser keeps. */

import { removeCopy } from '../browser.ts';
import { type CopyRecord, dropRecord, listCopies, originOf, placeOf } from './copies.ts';
import { el, setText } from './dom.ts';
import { explain } from './problem.ts';
import { formatBytes, formatShare } from './units.ts';

export interface CopyListOptions {
  onResume(record: CopyRecord): void;
  /** Opens a copy without its source. */
  onLook(record: CopyRecord): void;
  /** Called after a copy was removed from the list. */
  onRemoved(): void;
}

/** Makes the list. Without copies it is an empty element. */
export function copyList(options: CopyListOptions): HTMLElement {
  const records = listCopies();
  if (records.length === 0) return el('div', { hidden: true });
  return el(
    'section',
    { 'aria-labelledby': 'copies-title' },
    el('h2', { id: 'copies-title' }, 'Copies in this browser'),
    el('ul', { class: 'copies' }, ...records.map((record) => copyItem(record, options))),
  );
}

function copyItem(record: CopyRecord, { onResume, onLook, onRemoved }: CopyListOptions): HTMLElement {
  const { id, name, size, syncedBytes } = record;
  const outcome = el('span', { role: 'status', class: 'remark' });
  const remove = async (): Promise<void> => {
    // Removing deletes the copy, so the button needs two presses.
    if (removeButton.textContent === 'Remove') {
      setText(removeButton, 'Really remove?');
      return;
    }
    try {
      await removeCopy(placeOf(id));
      dropRecord(id);
      item.remove();
      onRemoved();
    } catch (error) {
      setText(outcome, explain(error).title);
      setText(removeButton, 'Remove');
    }
  };
  const removeButton = el(
    'button',
    { type: 'button', class: 'quiet', 'aria-describedby': `name-${id}`, onclick: () => void remove() },
    'Remove',
  );
  const item = el(
    'li',
    { class: 'card' },
    el('div', {}, el('strong', { id: `name-${id}` }, el('bdi', {}, name)), el('small', {}, originOf(record))),
    el('span', { class: 'muted' }, `${formatShare(syncedBytes, size)} of ${formatBytes(size)}`),
    outcome,
    el('button', { type: 'button', 'aria-label': `Resume ${name}`, onclick: () => onResume(record) }, 'Resume'),
    el(
      'button',
      { type: 'button', class: 'quiet', 'aria-label': `Look into ${name}`, onclick: () => onLook(record) },
      'Look into it',
    ),
    removeButton,
  );
  return item;
}
