// `node bench/http-transport.mjs [--size MIB] [--rounds N] [--json]`: see http-transport.ts.
import { runTs } from '../scripts/run-ts.mjs';

await runTs(new URL('http-transport.ts', import.meta.url));
