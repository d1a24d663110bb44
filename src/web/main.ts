/** The page: the start view, or an open disk. The address names the open disk, so that a reload resumes it. */

import { removeCopy } from '../browser.ts';
import { addressOf } from './address.ts';
import { dropRecord, forgetSecrets, type Image, idOf, isWithoutSource, placeOf, recordOf, sourceOf } from './copies.ts';
import { DiskView } from './disk-view.ts';
import { el } from './dom.ts';
import { explain, type Remedy } from './problem.ts';
import { problemCard } from './problem-card.ts';
import { hasSecret } from './secrets.ts';
import { Session } from './session.ts';
import { type HowToOpen, StartView } from './start-view.ts';

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

function goTo(hash: string): void {
  if (location.hash !== hash) history.pushState(null, '', hash === '' ? location.pathname : hash);
}

async function showStart(offer?: string | File): Promise<void> {
  const start = await startView();
  start.focus();
  if (offer !== undefined) await start.offer(offer);
}

async function startView(): Promise<StartView> {
  await leave();
  document.title = 'copyondemand';
  const start = new StartView({ onOpen: (image, how) => void open(image, how) });
  show(start.element);
  return start;
}

/** `look`: without a copy. The address then does not name the image, since a reload has nothing to resume. */
async function open(image: Image, { look = false, boot = false, rate }: HowToOpen = {}): Promise<void> {
  await leave();
  const { signal } = showing;
  goTo(look ? '#look' : `#disk=${await idOf(image)}`);
  show(el('main', { class: 'start' }, el('p', { class: 'lead', role: 'status' }, 'Opening …')));
  try {
    const session = await (look && !isWithoutSource(image)
      ? Session.look(image)
      : Session.open(image, rate === undefined ? { signal } : { signal, rate }));
    if (signal.aborted) return void session.close();
    const view = new DiskView({
      session,
      onLeave: goHome,
      onForget: () => void forget(image, () => showStart()),
      onSource: () => void askForSource(session.id),
      onRemedy: (remedy) => reopen(image, remedy),
    });
    current = { session, view };
    show(view.element);
    view.focus();
    if (boot) await view.boot();
  } catch (error) {
    if (!signal.aborted) await complain(image, error);
  }
}

function reopen(image: Image, remedy: Remedy): void {
  if (remedy === 'here' || remedy === 'download') void useHere(image, remedy);
  else if (remedy === 'anew') void forget(image, () => open(image));
  else void open(image, { look: remedy === 'look' });
}

/** Uses what is here of a kept copy. */
async function useHere(image: Image, remedy: 'here' | 'download'): Promise<void> {
  const record = recordOf(await idOf(image));
  if (record === undefined) return;
  if (remedy === 'here') return open(record);
  try {
    const { downloadCopy } = await import('./download.ts');
    await downloadCopy(record);
  } catch (error) {
    await complain(image, error);
  }
}

/** Continues a kept copy: with the source that is known, or asks for it. */
async function askForSource(id: string): Promise<void> {
  const record = recordOf(id);
  if (record === undefined) return showStart();
  const source = sourceOf(record);
  if (source !== undefined) return open(source);
  (await startView()).askForSource(record);
}

function goHome(): void {
  goTo('');
  void showStart();
}

async function forget(image: Image, then: () => Promise<void>): Promise<void> {
  await leave();
  const id = await idOf(image);
  try {
    await removeCopy(placeOf(id));
    dropRecord(id);
    goTo('');
    await then();
  } catch (error) {
    await complain(image, error);
  }
}

async function complain(image: Image, error: unknown): Promise<void> {
  const isKept = !isWithoutSource(image) && recordOf(await idOf(image)) !== undefined;
  const back = el('button', { type: 'button', class: 'link', onclick: goHome }, '← All images');
  const card = problemCard(explain(error, { isKept }), (remedy) => reopen(image, remedy));
  card.setAttribute('role', 'alert');
  show(el('main', { class: 'start' }, back, card));
}

/** Shows what the address asks for: a kept copy, an offered image, or the start view. */
async function route(): Promise<void> {
  const id = /^#disk=([0-9a-f]{16})$/.exec(location.hash)?.[1];
  const record = id === undefined ? undefined : recordOf(id);
  if (id !== undefined && record !== undefined) return askForSource(id);
  const asked = new URLSearchParams(location.search).get('image');
  const image = asked === null ? undefined : addressOf(asked, location.href);
  if (image !== undefined && hasSecret(image)) history.replaceState(null, '', location.pathname);
  return showStart(image);
}

forgetSecrets();
addEventListener('popstate', () => void route());
addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dragging');
});
for (const type of ['dragleave', 'drop']) addEventListener(type, () => document.body.classList.remove('dragging'));
addEventListener('drop', (event) => {
  // A directory has taken the files.
  if (event.defaultPrevented) return;
  event.preventDefault();
  const file = event.dataTransfer?.files[0];
  const text = event.dataTransfer?.getData('text/uri-list') || event.dataTransfer?.getData('text/plain') || '';
  const image = file ?? addressOf(text, location.href);
  if (image !== undefined) void showStart(image);
});
await route();
