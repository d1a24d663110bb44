/** The page: the start view, or an open disk. The address names the open disk, so that a reload resumes it. */

import { removeCopy } from '../browser.ts';
import { dropRecord, type Image, idOf, placeOf, recordOf } from './copies.ts';
import { DiskView, problemCard } from './disk-view.ts';
import { el } from './dom.ts';
import { explain } from './problem.ts';
import { Session } from './session.ts';
import { StartView } from './start-view.ts';

const app = document.querySelector('#app')!;
let current: { session: Session; view: DiskView } | undefined;
/** Aborted when another view replaces the current one. */
let showing = new AbortController();

function show(view: HTMLElement): void {
  app.replaceChildren(view);
}

async function leave(): Promise<void> {
  const left = current;
  current = undefined;
  showing.abort();
  showing = new AbortController();
  left?.view.close();
  await left?.session.close().catch(() => undefined);
}

function goTo(id: string | undefined): void {
  const hash = id === undefined ? '' : `#disk=${id}`;
  if (location.hash !== hash) history.pushState(null, '', hash === '' ? location.pathname : hash);
}

async function showStart(offer?: Image): Promise<void> {
  await leave();
  document.title = 'copyondemand';
  const start = new StartView({ onOpen: (image) => void open(image) });
  show(start.element);
  if (offer !== undefined) await start.offer(offer);
}

async function open(image: Image): Promise<void> {
  await leave();
  const { signal } = showing;
  const id = await idOf(image);
  goTo(id);
  show(el('main', { class: 'start' }, el('p', { class: 'lead', role: 'status' }, 'Opening …')));
  try {
    const session = await Session.open(image, signal);
    const view = new DiskView({
      session,
      onLeave: goHome,
      onForget: () => void forget(image, () => showStart()),
      onReopen: ({ anew }) => void (anew ? forget(image, () => open(image)) : open(image)),
    });
    current = { session, view };
    show(view.element);
    view.focus();
  } catch (error) {
    if (!signal.aborted) complain(image, error);
  }
}

function goHome(): void {
  goTo(undefined);
  void showStart();
}

async function forget(image: Image, then: () => Promise<void>): Promise<void> {
  await leave();
  const id = await idOf(image);
  try {
    await removeCopy(placeOf(id));
    dropRecord(id);
    goTo(undefined);
    await then();
  } catch (error) {
    complain(image, error);
  }
}

function complain(image: Image, error: unknown): void {
  const back = el('button', { type: 'button', class: 'link', onclick: goHome }, '← All images');
  const card = problemCard(explain(error), (anew) => void (anew ? forget(image, () => open(image)) : open(image)));
  card.setAttribute('role', 'alert');
  show(el('main', { class: 'start' }, back, card));
}

/** Shows what the address asks for: a kept copy, an offered image, or the start view. */
async function route(): Promise<void> {
  const id = /^#disk=([0-9a-f]{16})$/.exec(location.hash)?.[1];
  const record = id === undefined ? undefined : recordOf(id);
  if (record?.url !== undefined) return open(record.url);
  const asked = new URLSearchParams(location.search).get('image');
  if (record === undefined && asked !== null && URL.canParse(asked, location.href))
    return showStart(new URL(asked, location.href).href);
  await leave();
  const start = new StartView({ onOpen: (image) => void open(image) });
  show(start.element);
  if (record !== undefined) start.askForFile(record);
}

addEventListener('popstate', () => void route());
addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dragging');
});
for (const type of ['dragleave', 'drop']) addEventListener(type, () => document.body.classList.remove('dragging'));
addEventListener('drop', (event) => {
  event.preventDefault();
  const file = event.dataTransfer?.files[0];
  const text = event.dataTransfer?.getData('text/plain').trim() ?? '';
  if (file !== undefined) void showStart(file);
  else if (URL.canParse(text)) void showStart(new URL(text).href);
});
await route();
