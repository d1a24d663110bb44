/** A worker whose targets have planted bugs. */

import './install.ts';
import { work } from './engine.ts';
import * as planted from './planted-parser.ts';
import type { Target } from './target.ts';

const targets: Record<string, Target> = {};
for (const [name, run] of Object.entries(planted))
  targets[name] = { run: async (input) => run(input), seeds: () => [], maxBytes: 64 };

await work(targets);
