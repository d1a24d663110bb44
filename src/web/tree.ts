/**
 * A tree view after the WAI-ARIA pattern, for screen readers and keyboards. A branch loads its items when it is opened.
 */

import { el } from './dom.ts';
import { brief } from './problem.ts';

export interface TreeItem {
  readonly text: string;
  /** Shown dim beside the text. */
  readonly note?: string;
  readonly icon: 'disk' | 'directory' | 'file' | 'link' | 'other';
  /** For a branch: loads its items, and a remark to show above them. If it rejects, the branch shows the error. */
  readonly children?: () => Promise<{ items: readonly TreeItem[]; remark?: string | undefined }>;
  /** Called when the user chooses the item. */
  readonly onChoose?: () => void;
}

/** A branch shows this many items at a time. */
const PAGE = 500;

export class Tree {
  readonly element: HTMLUListElement;

  constructor(label: string, items: readonly TreeItem[]) {
    this.element = el('ul', {
      role: 'tree',
      'aria-label': label,
      class: 'tree',
      onkeydown: (event: KeyboardEvent) => this.#key(event),
    });
    this.#fill(this.element, items);
    this.element.querySelector('li')?.setAttribute('tabindex', '0');
  }

  /** Opens the branch at `index` among the items of the first level, unless the user has opened or closed it. */
  async open(index: number): Promise<void> {
    const branch = this.element.children[index];
    if (branch instanceof HTMLLIElement && branch.querySelector('ul') === null) await this.#expand(branch);
  }

  readonly #items = new WeakMap<Element, TreeItem>();

  #fill(list: HTMLUListElement, items: readonly TreeItem[], from = 0): void {
    list.append(...items.slice(from, from + PAGE).map((item) => this.#make(item)));
    const left = items.length - from - PAGE;
    if (left <= 0) return;
    const more: HTMLLIElement = this.#make({
      text: `${left} more …`,
      icon: 'other',
      onChoose: () => {
        this.#fill(list, items, from + PAGE);
        const next = more.nextElementSibling;
        if (next instanceof HTMLLIElement) this.#focus(next);
        more.remove();
      },
    });
    list.append(more);
  }

  #make(item: TreeItem): HTMLLIElement {
    const row = el(
      'div',
      { class: 'row' },
      el('span', { class: `icon ${item.icon}`, 'aria-hidden': 'true' }),
      el('bdi', {}, item.text),
      item.note === undefined ? undefined : el('small', {}, item.note),
    );
    const li = el(
      'li',
      { role: 'treeitem', tabindex: -1, 'aria-expanded': item.children === undefined ? undefined : 'false' },
      row,
    );
    row.addEventListener('click', () => {
      this.#focus(li);
      this.#choose(li);
    });
    this.#items.set(li, item);
    return li;
  }

  #choose(li: HTMLLIElement): void {
    const item = this.#items.get(li);
    for (const other of this.element.querySelectorAll('[aria-selected]')) other.removeAttribute('aria-selected');
    li.setAttribute('aria-selected', 'true');
    item?.onChoose?.();
    if (item?.children === undefined) return;
    if (li.getAttribute('aria-expanded') === 'true') li.setAttribute('aria-expanded', 'false');
    else void this.#expand(li);
  }

  async #expand(li: HTMLLIElement): Promise<void> {
    li.setAttribute('aria-expanded', 'true');
    const item = this.#items.get(li);
    if (item?.children === undefined || li.querySelector('ul') !== null) return;
    const list = el('ul', { role: 'group' }, note('reading …'));
    li.append(list);
    try {
      const { items, remark } = await item.children();
      list.replaceChildren(...(remark === undefined ? [] : [note(remark)]));
      this.#fill(list, items);
      if (items.length === 0 && remark === undefined) list.append(note('empty'));
    } catch (error) {
      // Removes the error when the branch is closed, so that opening it loads the items again.
      list.replaceChildren(note(brief(error)));
      li.addEventListener('click', () => list.remove(), { once: true, capture: true });
    }
  }

  #focus(li: HTMLLIElement): void {
    for (const other of this.element.querySelectorAll('li[tabindex="0"]')) other.setAttribute('tabindex', '-1');
    li.setAttribute('tabindex', '0');
    li.focus({ preventScroll: false });
  }

  #key(event: KeyboardEvent): void {
    const li = document.activeElement;
    if (!(li instanceof HTMLLIElement) || event.ctrlKey || event.metaKey || event.altKey) return;
    const seen = Array.from(this.element.querySelectorAll<HTMLLIElement>('li[role=treeitem]')).filter(
      (other) => other.closest('[aria-expanded=false] ul') === null,
    );
    const at = seen.indexOf(li);
    const expanded = li.getAttribute('aria-expanded');
    let next: HTMLLIElement | undefined;
    switch (event.key) {
      case 'ArrowDown':
        next = seen[at + 1];
        break;
      case 'ArrowUp':
        next = seen[at - 1];
        break;
      case 'Home':
        next = seen[0];
        break;
      case 'End':
        next = seen.at(-1);
        break;
      case 'ArrowRight':
        if (expanded === 'false') void this.#expand(li);
        else if (expanded === 'true') next = seen[at + 1];
        break;
      case 'ArrowLeft':
        if (expanded === 'true') li.setAttribute('aria-expanded', 'false');
        else next = li.parentElement?.closest<HTMLLIElement>('li[role=treeitem]') ?? undefined;
        break;
      case 'Enter':
      case ' ':
        this.#choose(li);
        break;
      default: {
        // A letter moves the focus to the next item that begins with it.
        if (event.key.length !== 1) return;
        const letter = event.key.toLowerCase();
        next = [...seen.slice(at + 1), ...seen.slice(0, at + 1)].find((other) =>
          this.#items.get(other)?.text.toLowerCase().startsWith(letter),
        );
      }
    }
    event.preventDefault();
    if (next !== undefined) this.#focus(next);
  }
}

function note(text: string): HTMLLIElement {
  return el('li', { role: 'none', class: 'note' }, text);
}
