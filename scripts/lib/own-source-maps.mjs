/** Leaves in source maps what is ours: the positions and names of bundled packages are half of a bundle's map. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decode, encode } from '@jridgewell/sourcemap-codec';

/**
 * Rewrites the source map of each bundle in a folder. A position in another package's code maps to nothing.
 * @param {string} folder
 */
export function keepOwnSources(folder) {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.js.map')) continue;
    const path = join(folder, name);
    writeFileSync(path, JSON.stringify(ownPart(JSON.parse(readFileSync(path, 'utf8')))));
  }
}

/** @param {{ sources: string[], names: string[], mappings: string }} map */
function ownPart(map) {
  const sources = new Places(map.sources);
  const names = new Places(map.names);
  const lines = decode(map.mappings).map((segments) => {
    /** @type {import('@jridgewell/sourcemap-codec').SourceMapSegment[]} */
    const kept = [];
    for (const segment of segments) {
      const [column, source = -1, line = 0, sourceColumn = 0, name] = segment;
      if (!/^(\.\.\/)+src\//.test(map.sources[source] ?? '')) {
        if (kept.at(-1)?.length !== 1) kept.push([column]);
      } else if (name === undefined) kept.push([column, sources.of(source), line, sourceColumn]);
      else kept.push([column, sources.of(source), line, sourceColumn, names.of(name)]);
    }
    return kept;
  });
  return { ...map, sources: sources.used, names: names.used, mappings: encode(lines) };
}

/** Numbers anew those entries of a list that are used. */
class Places {
  /** @type {string[]} */
  used = [];
  /** @type {Map<number, number>} */
  #places = new Map();
  #all;

  /** @param {readonly string[]} all */
  constructor(all) {
    this.#all = all;
  }

  /** @param {number} index */
  of(index) {
    let place = this.#places.get(index);
    if (place === undefined) {
      place = this.used.push(this.#all[index] ?? '') - 1;
      this.#places.set(index, place);
    }
    return place;
  }
}
