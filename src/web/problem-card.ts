/** A card that shows a problem and its remedies. */

import { el, setText } from './dom.ts';
import type { Problem, Remedy } from './problem.ts';

/** `Start over` deletes the copy, so that button needs two presses. */
export function problemCard(
  { title, text, detail, remedies }: Problem,
  onRemedy: (remedy: Remedy) => void,
  note?: string,
): HTMLElement {
  const anew = el('button', { type: 'button', class: 'danger', onclick: () => beginAnew() }, 'Start over');
  const beginAnew = (): void => {
    if (anew.textContent === 'Start over') setText(anew, 'Really start over?');
    else onRemedy('anew');
  };
  const again = el('button', { type: 'button', class: 'primary', onclick: () => onRemedy('again') }, 'Try again');
  const look = el('button', { type: 'button', onclick: () => onRemedy('look') }, 'Look without a copy');
  const here = el('button', { type: 'button', onclick: () => onRemedy('here') }, 'Look into what is here');
  const download = el('button', { type: 'button', onclick: () => onRemedy('download') }, 'Download …');
  const buttons: Readonly<Record<Remedy, HTMLElement>> = { again, anew, look, here, download };
  return el(
    'section',
    { class: 'card problem' },
    el('h2', {}, title),
    el('p', {}, text),
    note === undefined ? undefined : el('p', {}, note),
    detail === undefined ? undefined : el('p', { class: 'muted' }, detail),
    el('div', { class: 'actions' }, ...remedies.map((remedy) => buttons[remedy])),
  );
}
