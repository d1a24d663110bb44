// For `node --import`: the machine's wall clock is set a year forward or back, by turns, each time somebody looks at it.
const YEAR_MS = 365 * 86_400_000;
const now = Date.now;
let turns = 0;
const step = () => (turns++ % 2 === 0 ? YEAR_MS : -YEAR_MS);
Date.now = () => now() + step();
globalThis.Date = new Proxy(Date, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length === 0 ? [now() + step()] : args, newTarget),
});
