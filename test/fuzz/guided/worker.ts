/** A worker that fuzzes one of the targets. */

import './install.ts';
import { work } from './engine.ts';
import { TARGETS } from './targets.ts';

await work(TARGETS);
