/** The keyboard of a tree, after the WAI-ARIA pattern. */

export interface TreeActions {
  /** Whether a branch is open. `undefined` for an item that is no branch. */
  isOpen(li: HTMLLIElement): boolean | undefined;
  toggle(li: HTMLLIElement, open: boolean): Promise<void>;
  choose(li: HTMLLIElement): void;
  textOf(li: HTMLLIElement): string;
  focus(li: HTMLLIElement): void;
}

export class TreeKeys {
  readonly #actions: TreeActions;

  constructor(actions: TreeActions) {
    this.#actions = actions;
  }

  handle(event: KeyboardEvent, tree: HTMLElement): void {
    const li = document.activeElement;
    if (!(li instanceof HTMLLIElement) || event.ctrlKey || event.metaKey || event.altKey) return;
    const seen = Array.from(tree.querySelectorAll<HTMLLIElement>('li[role=treeitem]')).filter(
      (other) => other.closest('[aria-expanded=false] ul') === null,
    );
    const next = this.#moved(event.key, li, seen);
    if (next === undefined) return;
    event.preventDefault();
    if (next !== li) this.#actions.focus(next);
  }

  /** Does what a key asks. Returns the item that has the focus then; `undefined` for a key that is not the tree's. */
  #moved(key: string, li: HTMLLIElement, seen: readonly HTMLLIElement[]): HTMLLIElement | undefined {
    const at = seen.indexOf(li);
    switch (key) {
      case 'ArrowDown':
        return seen[at + 1] ?? li;
      case 'ArrowUp':
        return seen[at - 1] ?? li;
      case 'Home':
        return seen[0];
      case 'End':
        return seen.at(-1);
      case 'ArrowRight':
        if (this.#actions.isOpen(li) === true) return seen[at + 1] ?? li;
        if (this.#actions.isOpen(li) === false) void this.#actions.toggle(li, true);
        return li;
      case 'ArrowLeft':
        if (this.#actions.isOpen(li) !== true)
          return li.parentElement?.closest<HTMLLIElement>('li[role=treeitem]') ?? li;
        void this.#actions.toggle(li, false);
        return li;
      case '*':
        for (const other of li.parentElement?.querySelectorAll<HTMLLIElement>(':scope > li[role=treeitem]') ?? [])
          if (this.#actions.isOpen(other) === false) void this.#actions.toggle(other, true);
        return li;
      case 'Enter':
      case ' ':
        this.#actions.choose(li);
        return li;
      default: {
        // A letter moves the focus to the next item that begins with it.
        if (key.length !== 1) return undefined;
        const letter = key.toLowerCase();
        return (
          [...seen.slice(at + 1), ...seen.slice(0, at + 1)].find((other) =>
            this.#actions.textOf(other).toLowerCase().startsWith(letter),
          ) ?? li
        );
      }
    }
  }
}
