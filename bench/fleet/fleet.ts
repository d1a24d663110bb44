/** What run.mjs uses of the simulation. */

export { measured } from './measured.ts';
export { percentile, WAYS } from './options.ts';
export { simulate } from './simulation.ts';
