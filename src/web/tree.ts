/** A tree view after the WAI-ARIA pattern, for screen readers and keyboards. */

import { el, setText } from './dom.ts';
import { TreeKeys } from './tree-keys.ts';
import { PAGE, TreeNode } from './tree-node.ts';

export interface TreeItem {
  readonly text: string;
  /** Shown dim beside the text. A function is called when the item is first seen. */
  readonly note?: string | (() => Promise<string>);
  readonly icon: 'disk' | 'directory' | 'file' | 'link' | 'other';
  /** For a branch: loads its items, and a remark to show above them. If it rejects, the branch shows the error. */
  readonly children?: () => Promise<{ items: readonly TreeItem[]; remark?: string | undefined }>;
  /** Called when the user chooses the item. */
  readonly onChoose?: () => void;
  /** Called when the user drops files on the item. */
  readonly onDrop?: (files: readonly File[]) => void;
}

export interface SearchOptions {
  /** Branches that are loaded at most. */
  readonly limit: number;
  readonly signal: AbortSignal;
  onProgress(loaded: number): void;
}

/** A search does not load more items than this. */
const MAX_NODES = 200_000;
/** A search renews what the tree shows at this interval. */
const RENEW_MS = 300;

export class Tree {
  readonly element: HTMLUListElement;
  readonly #root: TreeNode;
  readonly #rows = new WeakMap<Element, TreeNode>();
  readonly #notes: IntersectionObserver;
  #filter = '';

  constructor(label: string, items: readonly TreeItem[]) {
    const keys = new TreeKeys({
      isOpen: (li) => this.#nodeOf(li)?.isOpen,
      toggle: (li, open) => this.#toggle(this.#nodeOf(li)!, open),
      choose: (li) => this.#choose(this.#nodeOf(li)!),
      textOf: (li) => this.#nodeOf(li)?.item.text ?? '',
      focus: (li) => this.#focus(li),
    });
    this.element = el('ul', {
      role: 'tree',
      'aria-label': label,
      class: 'tree',
      onkeydown: (event: KeyboardEvent) => keys.handle(event, this.element),
    });
    this.#notes = new IntersectionObserver((seen) => {
      for (const { isIntersecting, target } of seen) if (isIntersecting) void this.#showNote(target);
    });
    this.#root = new TreeNode({ text: '', icon: 'other' }, undefined);
    this.#root.list = this.element;
    this.#root.fill(items);
    this.#render(this.#root);
  }

  /** Opens the branch at `index` among the items of the first level, unless the user has opened or closed it. */
  async open(index: number): Promise<void> {
    const node = this.#root.children?.[index];
    if (node !== undefined && node.children === undefined) await this.#toggle(node, true);
  }

  /**
   * Shows only the items whose text contains `text` in any case, the items below them, and the branches above them.
   * @returns how many of the loaded items contain `text`.
   */
  filter(text: string): number {
    this.#filter = text.toLowerCase();
    const count = this.#root.mark(this.#filter);
    this.#render(this.#root);
    return count;
  }

  /** Loads branches that are not loaded, level by level, and keeps the filter. */
  async search({ limit, signal, onProgress }: SearchOptions): Promise<{ loaded: number; isComplete: boolean }> {
    const stopped = new Promise<readonly TreeNode[]>((resolve) => signal.addEventListener('abort', () => resolve([])));
    const queue = [...this.#root.branches()];
    let nodes = queue.length;
    let loaded = 0;
    let renewedMs = performance.now();
    for (const node of queue) {
      if (node.children !== undefined) continue;
      if (signal.aborted || loaded === limit || nodes > MAX_NODES) return { loaded, isComplete: false };
      for (const child of await Promise.race([node.load(), stopped])) {
        nodes++;
        if (child.item.children !== undefined) queue.push(child);
      }
      onProgress(++loaded);
      if (performance.now() - renewedMs < RENEW_MS) continue;
      this.filter(this.#filter);
      renewedMs = performance.now();
    }
    return { loaded, isComplete: !signal.aborted };
  }

  /** Opens the branches on the way to an item, then focuses and chooses it. `way` begins with a root item's text. */
  async reveal(way: readonly string[]): Promise<void> {
    this.filter('');
    let node: TreeNode = this.#root;
    for (const text of way) {
      await this.#toggle(node, true);
      const index = node.children?.findIndex(({ item }) => item.text === text) ?? -1;
      if (index < 0) return;
      if (index >= node.limit) {
        node.limit = index + PAGE;
        this.#render(node);
      }
      node = node.children![index]!;
    }
    if (node.li === undefined) return;
    this.#focus(node.li);
    this.#select(node);
    if (node.item.children !== undefined) await this.#toggle(node, true);
    node.item.onChoose?.();
  }

  /** Loads the items of an open branch again. Their branches stay open. */
  async reload(way: readonly string[]): Promise<void> {
    const node = way.reduce<TreeNode | undefined>(
      (parent, text) => parent?.children?.find(({ item }) => item.text === text),
      this.#root,
    );
    if (node?.children === undefined) return;
    await node.load();
    this.#render(node);
  }

  #nodeOf(li: Element): TreeNode | undefined {
    return this.#rows.get(li);
  }

  /** Fills the list of a branch, and the lists of the open branches in it. */
  #render(node: TreeNode): void {
    const { list, children } = node;
    if (list === undefined || children === undefined) return;
    const shown = this.#filter === '' ? children : children.filter((child) => child.passes);
    const rows = shown.slice(0, node.limit).map((child, index) => this.#row(child, index, shown.length));
    const left = shown.length - rows.length;
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    list.replaceChildren(
      ...(node.remark === undefined ? [] : [remark(node.remark)]),
      ...rows,
      ...(left > 0 ? [this.#more(node, left)] : []),
      ...(children.length === 0 && node.remark === undefined ? [remark('empty')] : []),
    );
    if (focused instanceof HTMLLIElement && list.contains(focused)) focused.focus({ preventScroll: true });
    if (this.element.querySelector('li[tabindex="0"]') === null)
      this.element.querySelector('li[role=treeitem]')?.setAttribute('tabindex', '0');
  }

  #row(node: TreeNode, index: number, count: number): HTMLLIElement {
    const li = (node.li ??= this.#make(node));
    li.setAttribute('aria-posinset', String(index + 1));
    li.setAttribute('aria-setsize', String(count));
    this.#showOpen(node);
    return li;
  }

  #showOpen(node: TreeNode): void {
    if (node.item.children === undefined || node.li === undefined) return;
    const isOpen = node.isOpen === true;
    node.li.setAttribute('aria-expanded', String(isOpen));
    if (!isOpen) return;
    if (node.list === undefined) {
      node.list = el('ul', { role: 'group' }, remark('reading …'));
      node.li.append(node.list);
    }
    this.#render(node);
  }

  #make(node: TreeNode): HTMLLIElement {
    const { item } = node;
    const note = item.note === undefined ? undefined : el('small', {}, typeof item.note === 'string' ? item.note : '');
    const row = el(
      'div',
      { class: 'row' },
      el('span', { class: `icon ${item.icon}`, 'aria-hidden': 'true' }),
      el('bdi', {}, item.text),
      note,
    );
    const li = el('li', { role: 'treeitem', tabindex: -1 }, row);
    row.addEventListener('click', () => {
      this.#focus(li);
      this.#choose(node);
    });
    const { onDrop } = item;
    if (onDrop !== undefined) {
      row.addEventListener('dragover', (event) => event.preventDefault());
      row.addEventListener('drop', (event) => {
        event.preventDefault();
        onDrop(Array.from(event.dataTransfer?.files ?? []));
      });
    }
    this.#rows.set(li, node);
    if (typeof item.note === 'function') this.#notes.observe(li);
    return li;
  }

  async #showNote(li: Element): Promise<void> {
    this.#notes.unobserve(li);
    const note = this.#nodeOf(li)?.item.note;
    const place = li.querySelector(':scope > .row > small');
    if (typeof note === 'function' && place !== null) setText(place, await note().catch(() => ''));
  }

  #more(node: TreeNode, left: number): HTMLLIElement {
    const from = node.limit;
    const onChoose = (): void => {
      node.limit += PAGE;
      this.#render(node);
      const next = node.list?.querySelectorAll<HTMLLIElement>(':scope > li[role=treeitem]')[from];
      if (next !== undefined) this.#focus(next);
    };
    return this.#make(new TreeNode({ text: `${left} more …`, icon: 'other', onChoose }, node));
  }

  #select({ li }: TreeNode): void {
    for (const other of this.element.querySelectorAll('[aria-selected]')) other.removeAttribute('aria-selected');
    li?.setAttribute('aria-selected', 'true');
  }

  #choose(node: TreeNode): void {
    this.#select(node);
    node.item.onChoose?.();
    if (node.item.children !== undefined) void this.#toggle(node, !node.isOpen);
  }

  async #toggle(node: TreeNode, open: boolean): Promise<void> {
    node.open = open;
    // The user closes a branch that the filter has opened.
    if (!open) node.found = false;
    this.#showOpen(node);
    if (!open || node.item.children === undefined) return;
    if (node.children === undefined || node.failed) {
      await node.load();
      this.#root.mark(this.#filter);
    }
    this.#showOpen(node);
  }

  #focus(li: HTMLLIElement): void {
    for (const other of this.element.querySelectorAll('li[tabindex="0"]')) other.setAttribute('tabindex', '-1');
    li.setAttribute('tabindex', '0');
    li.focus({ preventScroll: false });
  }
}

function remark(text: string): HTMLLIElement {
  return el('li', { role: 'none', class: 'note' }, text);
}
