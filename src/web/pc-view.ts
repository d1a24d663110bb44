/**
 * Runs a PC in v86 from the disk. The PC boots before the copy is complete, and its writes are kept.
 *
 * The view exists only if the build of the page found v86 and a BIOS. Before the PC starts, the view checks whether
 * anything on the disk starts.
 */

import type { V86 } from 'v86';
import { v86Disk } from '../v86.ts';
import { checkBoot, type Drive } from './boot-check.ts';
import { holdVolumes } from './disk-lock.ts';
import { el, setText } from './dom.ts';
import { savedPcOf } from './offers.ts';
import type { Session } from './session.ts';

/** scripts/lib/saved-pc.mjs saves PCs of this size. */
const MEMORY_BYTES = 128 * 2 ** 20;
const DRIVES: Readonly<Record<Drive, string>> = { hda: 'hard disk', fda: 'floppy', cdrom: 'CD' };

/** Returns the folder of the emulator, or `undefined` if this page was built without the emulator. */
export function pcFolder(): string | undefined {
  return document.querySelector<HTMLElement>('#app')?.dataset['pc'];
}

export class PcView {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #folder: string;
  readonly #button: HTMLButtonElement;
  readonly #state = el('span', { class: 'muted', role: 'status' });
  readonly #screen: HTMLElement;
  readonly #problem = el('div', { role: 'alert' });
  readonly #keys: HTMLElement;
  #emulator: V86 | undefined;
  #starting = false;
  /** Ends the hold on the disk's volumes. */
  #release: (() => void) | undefined;

  constructor(session: Session, folder: string) {
    this.#session = session;
    this.#folder = folder;
    this.#button = el('button', { type: 'button', class: 'small', onclick: () => void this.#toggle() }, 'Start the PC');
    // v86 draws text into the first child and graphics into the second.
    this.#screen = el('div', {
      class: 'screen',
      tabindex: 0,
      role: 'application',
      'aria-label': 'Screen of the PC',
      'aria-describedby': 'pc-keys',
      hidden: true,
      onfocus: () => this.#emulator?.keyboard_set_enabled(true),
      onblur: () => this.#releaseKeyboard(),
      onkeydown: (event: KeyboardEvent) => this.#key(event),
    });
    this.#screen.append(el('div'), el('canvas', { 'aria-hidden': 'true' }));
    this.#keys = el(
      'p',
      { id: 'pc-keys', class: 'muted', hidden: true },
      'While the screen has the focus, the PC gets every key. ',
      ...['Ctrl', 'Alt', 'G'].flatMap((key, index) => [index === 0 ? '' : '+', el('kbd', {}, key)]),
      ' leaves the screen.',
    );
    const about = session.isKept
      ? 'A 32-bit PC with this disk. Its writes are kept and survive a reload.'
      : 'A 32-bit PC with this disk. Its writes stay in memory until you leave this page.';
    this.element = el(
      'section',
      { class: 'card pc', 'aria-labelledby': 'pc-title' },
      el('header', {}, el('h2', { id: 'pc-title' }, 'Boot it'), this.#button, this.#state),
      el('p', { class: 'muted' }, about),
      this.#problem,
      this.#screen,
      this.#keys,
    );
  }

  /** Shows the PC, and starts it if it is off. */
  async boot(): Promise<void> {
    this.element.scrollIntoView({ block: 'start' });
    if (this.#emulator === undefined) await this.#toggle();
    this.#screen.focus();
  }

  /** Switches the PC off. */
  close(): void {
    const emulator = this.#emulator;
    this.#emulator = undefined;
    this.#session.hasPc = false;
    void emulator?.destroy();
    this.#release?.();
    this.#release = undefined;
  }

  async #toggle(): Promise<void> {
    if (this.#starting) return;
    if (this.#emulator !== undefined) {
      this.close();
      this.#screen.hidden = true;
      this.#keys.hidden = true;
      setText(this.#button, 'Start the PC');
      setText(this.#state, 'The PC is off.');
      return;
    }
    // A second PC on the same disk would destroy its file system.
    if (this.#session.device.role === 'guest') {
      setText(this.#state, 'This disk is open in another tab: start the PC there.');
      return;
    }
    await this.#attempt(async () => {
      setText(this.#state, 'Reading the boot sector …');
      const { drive, problem } = await checkBoot(this.#session);
      if (problem === undefined) return this.#start(drive);
      setText(this.#state, '');
      this.#warn(drive, problem);
    });
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    this.#starting = true;
    this.#problem.replaceChildren();
    try {
      await action();
    } catch (error) {
      this.close();
      setText(this.#state, (error as Error).message);
    }
    this.#starting = false;
  }

  #warn(drive: Drive, problem: string): void {
    const start = el(
      'button',
      { type: 'button', onclick: () => void this.#attempt(() => this.#start(drive)) },
      'Start anyway',
    );
    this.#problem.replaceChildren(
      el(
        'div',
        { class: 'problem card' },
        el('h3', {}, 'Nothing on this disk boots'),
        el('p', {}, problem),
        el('div', { class: 'actions' }, start),
      ),
    );
  }

  #key(event: KeyboardEvent): void {
    if (!event.ctrlKey || !event.altKey || event.code !== 'KeyG') return;
    event.preventDefault();
    event.stopPropagation();
    this.#button.focus();
  }

  #releaseKeyboard(): void {
    // At this event v86 releases the keys in the PC that are pressed: the PC does not see their ends.
    window.dispatchEvent(new Event('blur'));
    this.#emulator?.keyboard_set_enabled(false);
  }

  async #start(drive: Drive): Promise<void> {
    this.#release = await holdVolumes(this.#session);
    if (this.#release === undefined)
      throw new Error('A file is being put into this disk: start the PC when it is there.');
    setText(this.#state, 'Starting …');
    const at = (name: string): string => new URL(`${this.#folder}/${name}`, document.baseURI).href;
    const { V86 } = (await import(at('libv86.mjs'))) as typeof import('v86');
    this.#screen.hidden = false;
    const disk = v86Disk(this.#session.device, {
      onError: (error) => setText(this.#state, `The disk has failed and the PC hangs: ${(error as Error).message}`),
    });
    const saved = await this.#savedPc();
    // The view was closed meanwhile, and the disk is another's.
    if (this.#release === undefined) return;
    this.#emulator = new V86({
      wasm_path: at('v86.wasm'),
      bios: { url: at('bios.bin') },
      vga_bios: { url: at('vgabios.bin') },
      // v86 accepts any object with the methods of a disk. Its declarations list only v86's own disks.
      [drive]: disk as never,
      memory_size: MEMORY_BYTES,
      ...(saved && { initial_state: { buffer: saved } }),
      screen_container: this.#screen,
      autostart: true,
      disable_speaker: true,
    });
    this.#emulator.keyboard_set_enabled(false);
    this.#session.hasPc = true;
    this.#keys.hidden = false;
    setText(this.#button, 'Switch off');
    setText(this.#state, `The disk is the PC’s ${DRIVES[drive]}.`);
    this.#screen.focus();
  }

  /** Returns a PC that has started from this disk, if the page has one and the disk was never written. */
  async #savedPc(): Promise<ArrayBuffer | undefined> {
    const { image } = this.#session;
    if (typeof image !== 'string' || !(await this.#session.isUntouched())) return undefined;
    const url = await savedPcOf(image);
    if (url === undefined) return undefined;
    try {
      const { ok, body } = await fetch(url);
      if (!ok || body === null) return undefined;
      return await new Response(body.pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
    } catch {
      // The PC starts from the disk instead.
      return undefined;
    }
  }
}
