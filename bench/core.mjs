// `node bench/core.mjs [--json] [--rounds N]`: see core.ts.
import { runTs } from '../scripts/run-ts.mjs';

await runTs(new URL('core.ts', import.meta.url));
