/** The images that the server of this page has: samples from its build, and the files of a folder. */

import { el } from './dom.ts';
import { formatBytes } from './units.ts';

/** A file beside the page. */
interface Offer {
  /** Relative to the page. */
  readonly url: string;
  readonly size: number;
  /** A saved PC that has started from the image as it is, relative to the page. */
  readonly pc?: string;
}

/** The file `images.json` beside the page. */
interface Offers {
  readonly samples?: readonly Offer[];
  readonly folder?: readonly Offer[];
}

/** How the page opens a sample. */
export interface SampleOptions {
  /** Starts the PC at once. */
  readonly boot: boolean;
  /** Limit of the background copy in bytes per second, so that its user sees what the copy fetches. */
  readonly rate: number;
}

interface Sample extends SampleOptions {
  readonly title: string;
  readonly text: string;
}

const SAMPLES: Readonly<Record<string, Sample>> = {
  'linux.img': {
    title: 'Boot a small Linux',
    text: 'A disk with a Debian kernel and its drivers. The prompt appears with a few per cent of the disk here.',
    boot: true,
    rate: 2 ** 18,
  },
  'card.img': {
    title: 'Look into a camera’s card',
    text: 'A FAT32 memory card. Open a picture: only its own blocks are fetched.',
    boot: false,
    rate: 2 ** 18,
  },
  'floppy.img': {
    title: 'Play from a floppy',
    text: 'GRUB starts a game of space invaders from a floppy. The arrow keys move, and the space bar fires.',
    boot: true,
    rate: 2 ** 18,
  },
};

export interface OffersView {
  readonly samples: HTMLElement;
  readonly folder: HTMLElement;
}

/** Fills the sections with what the server has. A server without images has no list, and the sections stay empty. */
export async function showOffers(
  view: OffersView,
  on: { sample(url: string, options: SampleOptions): void; file(url: string): void },
): Promise<void> {
  const { samples = [], folder = [] } = await fetchOffers();
  const cards = samples.flatMap(({ url, size }) => {
    const sample = SAMPLES[url.split('/').at(-1)!];
    if (sample === undefined) return [];
    const href = new URL(url, document.baseURI).href;
    const { title, text } = sample;
    return [
      el(
        'li',
        {},
        el(
          'button',
          { type: 'button', class: 'sample card', onclick: () => on.sample(href, sample) },
          el('strong', {}, title),
          el('span', {}, text),
          el('small', {}, formatBytes(size)),
        ),
      ),
    ];
  });
  if (cards.length > 0) view.samples.replaceChildren(el('h2', {}, 'Try one'), el('ul', { class: 'samples' }, ...cards));
  const files = folder.map(({ url, size }) => {
    const name = decodeURIComponent(url.split('/').at(-1)!);
    const open = (): void => on.file(new URL(url, document.baseURI).href);
    return el(
      'li',
      {},
      el('button', { type: 'button', class: 'link', onclick: open }, el('bdi', {}, name)),
      el('small', {}, formatBytes(size)),
    );
  });
  if (files.length > 0)
    view.folder.replaceChildren(el('h2', {}, 'Images on this server'), el('ul', { class: 'on-server' }, ...files));
}

/** Returns the address of a saved PC that has started from an image as it is, if the server of this page has one. */
export async function savedPcOf(image: string): Promise<string | undefined> {
  const { samples = [] } = await fetchOffers();
  const pc = samples.find(({ url }) => new URL(url, document.baseURI).href === image)?.pc;
  return pc === undefined ? undefined : new URL(pc, document.baseURI).href;
}

async function fetchOffers(): Promise<Offers> {
  try {
    const response = await fetch('images.json');
    return response.ok ? ((await response.json()) as Offers) : {};
  } catch {
    return {};
  }
}
