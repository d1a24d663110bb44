/**
 * Runs a PC in v86 with the disk as its hard disk. The PC boots before the copy is complete, and its writes are kept.
 *
 * The view exists only if the build of the page found v86 and a BIOS.
 */

import type { V86 } from 'v86';
import { v86Disk } from '../v86.ts';
import { el, setText } from './dom.ts';
import type { Session } from './session.ts';

const MEMORY_BYTES = 128 * 2 ** 20;

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
  #emulator: V86 | undefined;
  #starting = false;

  constructor(session: Session, folder: string) {
    this.#session = session;
    this.#folder = folder;
    this.#button = el('button', { type: 'button', class: 'small', onclick: () => void this.#toggle() }, 'Start the PC');
    // v86 draws text into the first child and graphics into the second.
    this.#screen = el('div', {
      class: 'screen',
      tabindex: 0,
      role: 'application',
      'aria-label': 'Screen of the PC; receives the keyboard while focused',
      hidden: true,
    });
    this.#screen.append(el('div'), el('canvas', { 'aria-hidden': 'true' }));
    this.#screen.addEventListener('focus', () => this.#emulator?.keyboard_set_enabled(true));
    this.#screen.addEventListener('blur', () => this.#emulator?.keyboard_set_enabled(false));
    this.element = el(
      'section',
      { class: 'card pc', 'aria-labelledby': 'pc-title' },
      el('header', {}, el('h2', { id: 'pc-title' }, 'Boot the disk'), this.#button, this.#state),
      el('p', { class: 'muted' }, 'A 32-bit PC with this disk. Its flushed writes are durable and survive a reload.'),
      this.#screen,
    );
  }

  /** Switches the PC off. */
  close(): void {
    const emulator = this.#emulator;
    this.#emulator = undefined;
    void emulator?.destroy();
  }

  async #toggle(): Promise<void> {
    if (this.#starting) return;
    if (this.#emulator !== undefined) {
      this.close();
      this.#screen.hidden = true;
      setText(this.#button, 'Start the PC');
      setText(this.#state, 'The PC is off.');
      return;
    }
    // A second PC on the same disk would destroy its file system.
    if (this.#session.device.role === 'guest') {
      setText(this.#state, 'This disk is open in another tab: start the PC there.');
      return;
    }
    this.#starting = true;
    setText(this.#state, 'Starting …');
    try {
      await this.#start();
      setText(this.#button, 'Switch off');
      setText(this.#state, 'Click the screen to type.');
    } catch (error) {
      setText(this.#state, (error as Error).message);
    }
    this.#starting = false;
  }

  async #start(): Promise<void> {
    const at = (name: string): string => new URL(`${this.#folder}/${name}`, document.baseURI).href;
    const { V86 } = (await import(at('libv86.mjs'))) as typeof import('v86');
    this.#screen.hidden = false;
    const disk = v86Disk(this.#session.device, {
      onError: (error) => setText(this.#state, `The disk has failed and the PC hangs: ${(error as Error).message}`),
    });
    this.#emulator = new V86({
      wasm_path: at('v86.wasm'),
      bios: { url: at('bios.bin') },
      vga_bios: { url: at('vgabios.bin') },
      // v86 accepts any object with the methods of a disk. Its declarations list only v86's own disks.
      hda: disk as never,
      memory_size: MEMORY_BYTES,
      screen_container: this.#screen,
      autostart: true,
      disable_speaker: true,
    });
    this.#emulator.keyboard_set_enabled(false);
    this.#screen.focus();
  }
}
