/** What this process says of its copies: a line for each on stderr at SIGUSR1, and one text for a service manager. */

const lines = new Set<() => string>();

/** Prints what `line` returns at each SIGUSR1, until the returned function is called. */
export function tellOnSignal(line: () => string): () => void {
  if (lines.size === 0) process.on('SIGUSR1', tell);
  lines.add(line);
  return () => {
    if (lines.delete(line) && lines.size === 0) process.off('SIGUSR1', tell);
  };
}

/** Returns one line about all copies. */
export function statusText(): string {
  const [first = '', ...more] = [...lines].map((line) => line().trimEnd());
  return more.length === 0 ? first : `${lines.size} copies; ${first}`;
}

function tell(): void {
  process.stderr.write([...lines].map((line) => line()).join(''));
}
