/** Long work in steps, so that it does not hold the event loop. */

/** A clock that can let the event loop turn, or cannot. */
export interface TurningClock {
  turn?(): Promise<void>;
}

/** Runs `steps` to their end and returns their result. The event loop turns between any two of them. */
export async function inTurns<T>(steps: Generator<void, T, undefined>, clock: TurningClock): Promise<T> {
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return step.value;
    await clock.turn?.();
  }
}
