// For `node --import`: the wall clock jumps a year forward or back, alternately, each time it is read.
const YEAR_MS = 365 * 86_400_000;
const now = Date.now;
let turns = 0;
const step = () => (turns++ % 2 === 0 ? YEAR_MS : -YEAR_MS);
Date.now = () => now() + step();
globalThis.Date = new Proxy(Date, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length === 0 ? [now() + step()] : args, newTarget),
});
