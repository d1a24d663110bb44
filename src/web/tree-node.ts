/** An item of a tree with its state: what is loaded, open, and shown by the filter. */

import { brief } from './problem.ts';
import type { TreeItem } from './tree.ts';

/** A branch shows this many items at a time. */
export const PAGE: number = 500;

export class TreeNode {
  readonly item: TreeItem;
  readonly parent: TreeNode | undefined;
  /** The loaded items. `undefined` before. */
  children: readonly TreeNode[] | undefined;
  remark: string | undefined;
  /** Whether loading has failed. It is tried again when the branch is opened again. */
  failed = false;
  /** How many items are shown. */
  limit: number = PAGE;
  /** Whether the user has opened the branch. */
  open = false;
  /** Whether an item below contains the filter's text. */
  found = false;
  /** Whether the filter shows the item. */
  passes = true;
  li: HTMLLIElement | undefined;
  list: HTMLUListElement | undefined;
  #loading: Promise<readonly TreeNode[]> | undefined;
  readonly #lower: string;

  constructor(item: TreeItem, parent: TreeNode | undefined) {
    this.item = item;
    this.parent = parent;
    this.#lower = item.text.toLowerCase();
  }

  /** Whether the branch is shown open. `undefined` for an item that is no branch. */
  get isOpen(): boolean | undefined {
    return this.item.children === undefined ? undefined : this.open || this.found;
  }

  /** Sets the items. An item that was there keeps its state. */
  fill(items: readonly TreeItem[]): void {
    const before = new Map(this.children?.map((node) => [node.item.text, node]));
    this.children = items.map((item) => {
      const node = new TreeNode(item, this);
      const old = before.get(item.text);
      if (old?.item.children !== undefined && item.children !== undefined) {
        before.delete(item.text);
        node.open = old.open;
        node.limit = old.limit;
        node.children = old.children;
        node.remark = old.remark;
      }
      return node;
    });
  }

  /** Loads the items. It never rejects: the remark says what failed. Concurrent calls share one load. */
  load(): Promise<readonly TreeNode[]> {
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #load(): Promise<readonly TreeNode[]> {
    try {
      const { items, remark } = await this.item.children!();
      this.fill(items);
      this.remark = remark;
      this.failed = false;
    } catch (error) {
      this.fill([]);
      this.remark = brief(error);
      this.failed = true;
    }
    return this.children ?? [];
  }

  /**
   * Sets for this node and all loaded nodes below whether a filter shows them.
   * @returns how many of them contain `text`.
   */
  mark(text: string, above = false): number {
    const own = this.parent !== undefined && text !== '' && this.#lower.includes(text);
    let below = 0;
    for (const child of this.children ?? []) below += child.mark(text, above || own);
    this.found = text !== '' && below > 0;
    // Disks are always shown, so that the tree says where things are.
    this.passes = above || own || below > 0 || this.item.icon === 'disk';
    return below + (own ? 1 : 0);
  }

  /** Yields the branches of the loaded tree, level by level. */
  *branches(): Generator<TreeNode> {
    const queue: TreeNode[] = [...(this.children ?? [])];
    for (const node of queue) {
      if (node.item.children === undefined) continue;
      yield node;
      queue.push(...(node.children ?? []));
    }
  }
}
