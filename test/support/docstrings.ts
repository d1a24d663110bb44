/** The examples in docstrings. Runs in Node and in pages. */

/** An `@example` of a docstring. */
export interface Example {
  /** The module in its fence. */
  readonly code: string;
  /** The lines that the module prints: the comments after its calls of `console.log`. */
  readonly output: readonly string[];
}

const COMMENT = /\/\*\*[\s\S]*?\*\//g;

/**
 * Returns the examples of all docstrings in a source file, or in a part of one.
 * @throws Error if an example is not one fence of TypeScript
 */
export function examplesIn(source: string): Example[] {
  return [...source.matchAll(COMMENT)].flatMap(([comment]) => {
    const text = comment.slice('/**'.length, -'*/'.length).replace(/^[ \t]*\* ?/gm, '');
    return text
      .split(/^@example$/m)
      .slice(1)
      .map(exampleOf);
  });
}

function exampleOf(section: string): Example {
  const code = /^\s*```ts\n([\s\S]*?)^```\s*(?:@|$)/m.exec(section)?.[1];
  if (code === undefined) throw new Error(`an example must be a fence of TypeScript:\n${section}`);
  return { code, output: [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, line]) => line!) };
}
