/** `copyondemand pause`, `resume` and `set-rate`: they steer the background copy of the process that owns a copy. */

import { askOwner } from '../control/client.ts';
import type { Device } from '../device/types.ts';
import { CodError } from '../errors.ts';
import { emitError, UsageError } from './failure.ts';
import { jsonLines } from './json-lines.ts';
import type { RateControl } from './rate-control.ts';
import { formatRate } from './units.ts';

/** What the owner can be asked for. */
export type Steering = 'pause' | 'resume' | 'set-rate';

/** Parsed options of the commands. */
export interface SteeringFlags {
  readonly json?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
}

/** What the owner answers. */
interface Steered {
  readonly pid: number;
  readonly state: string;
  readonly paused: boolean;
  /** Null: no limit. */
  readonly rateBytesPerSecond: number | null;
  /** Whether a rate file says the rate, and not this command. */
  readonly hasRateFile: boolean;
}

/**
 * Asks the owner of the copy at TARGET.
 * @param rate bytes per second, for `set-rate`; undefined: no limit
 * @throws {@link UsageError} if TARGET is empty; COD_NOT_RUNNING if no process owns it; the owner's error.
 */
export async function steer(
  command: Steering,
  target: string,
  { json = false, metadata = target }: SteeringFlags,
  rate?: number,
): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: json });
  try {
    if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
    const argument = command === 'set-rate' ? { rate: String(rate ?? 'unlimited') } : {};
    const steered = (await askOwner(metadata, command, argument)) as Steered | undefined;
    if (steered === undefined) {
      const message = `no process copies ${target}: start it with \`copyondemand serve\` or \`copy\``;
      throw new CodError('COD_NOT_RUNNING', message, { details: { target } });
    }
    emit('done', { target, ...steered });
    if (!json) process.stderr.write(`${target}: ${describe(steered)}\n`);
  } catch (error) {
    emitError(emit, error);
    throw error;
  }
}

function describe({ pid, state, rateBytesPerSecond, hasRateFile }: Steered): string {
  const rate = rateBytesPerSecond === null ? 'no limit' : `at most ${formatRate(rateBytesPerSecond)}`;
  return `${state}, ${rate}${hasRateFile ? ' (as its rate file says)' : ''}, process ${pid}`;
}

/** Answers these commands on the owner's side. Undefined: it is another command. */
export function answerSteering(
  { device, rate }: { device: Device; rate: RateControl | undefined },
  command: string,
  request: Readonly<Record<string, unknown>>,
): Promise<Steered> | undefined {
  if (command !== 'pause' && command !== 'resume' && command !== 'set-rate') return undefined;
  return (async () => {
    if (rate === undefined) throw new CodError('COD_UNSUPPORTED', 'this process serves without a background copy');
    if (command === 'pause') device.pause();
    else if (command === 'resume') device.resume();
    else rate.set(rateOf(request['rate']));
    const { state, rateBytesPerSecond } = device.status();
    return {
      pid: process.pid,
      state,
      paused: state === 'paused',
      rateBytesPerSecond: rateBytesPerSecond ?? null,
      hasRateFile: rate.hasFile,
    };
  })();
}

function rateOf(text: unknown): number | undefined {
  if (text === 'unlimited') return undefined;
  const rate = Number(text);
  if (typeof text === 'string' && rate > 0 && rate < Number.POSITIVE_INFINITY) return rate;
  throw new CodError('COD_UNSUPPORTED', `${JSON.stringify(text)} is not a rate in bytes per second`);
}
