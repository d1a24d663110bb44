/** SIGUSR1: the process prints one line for each of its copies on stderr. */

import { show } from './log/told.ts';

const lines = new Set<() => string>();

/** Prints what `line` returns at each SIGUSR1, until the returned function is called. */
export function tellOnSignal(line: () => string): () => void {
  if (lines.size === 0) process.on('SIGUSR1', tell);
  lines.add(line);
  return () => {
    if (lines.delete(line) && lines.size === 0) process.off('SIGUSR1', tell);
  };
}

/** Returns the line of each copy, by name: disks of one configuration open in any order. */
export function statusLines(): string[] {
  return [...lines].map((line) => line()).sort();
}

function tell(): void {
  show('info', statusLines().join(''));
}
