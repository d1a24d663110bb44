/** `copyondemand pause`, `resume` and `set-rate`: they steer the background copy of the process that owns a copy. */

import type { CopyStatus } from '../control/status.ts';
import { type ControlFlags, controlFor } from './control-flags.ts';
import { emitError, UsageError } from './failure.ts';
import { jsonLines } from './json-lines.ts';
import { formatRate } from './units.ts';

/** What the owner can be asked for. */
export type Steering = 'pause' | 'resume' | 'set-rate';

/** Parsed options of the commands. */
export interface SteeringFlags extends ControlFlags {
  readonly json?: boolean;
}

/**
 * Asks the owner of the copy at TARGET.
 * @param rate bytes per second, for `set-rate`; undefined: no limit
 * @throws {@link UsageError} if TARGET is empty; COD_NOT_RUNNING if no process owns it; the owner's error.
 */
export async function steer(
  command: Steering,
  target: string,
  { json = false, ...flags }: SteeringFlags,
  rate?: number,
): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: json });
  try {
    if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
    const control = controlFor(target, flags);
    const status = await (command === 'set-rate' ? control.setRate(rate) : control[command]());
    const { pid, state, paused, rateBytesPerSecond, rateFile } = status;
    emit('done', { target, pid, state, paused, rateBytesPerSecond, hasRateFile: rateFile !== null });
    if (!json) process.stderr.write(`${target}: ${describe(status)}\n`);
  } catch (error) {
    emitError(emit, error);
    throw error;
  }
}

function describe({ pid, state, rateBytesPerSecond, rateFile }: CopyStatus): string {
  const rate = rateBytesPerSecond === null ? 'no limit' : `at most ${formatRate(rateBytesPerSecond)}`;
  return `${state}, ${rate}${rateFile === null ? '' : ' (as its rate file says)'}, process ${pid}`;
}
