/** `copyondemand repair`: says what can be saved from damaged metadata, and with `--yes` does it. */

import { nodeFileSystem } from '../control/node-file-system.ts';
import { type RepairPlan, repairIn } from '../log/repair.ts';
import { systemEnvironment } from '../platform/environment.ts';
import { emitError, UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { counted, formatBytes } from './units.ts';

/** The plan names so many extents of lost bytes. */
const PLACES = 8;

/** Parsed options of the command. */
export interface RepairFlags {
  readonly yes?: boolean;
  readonly json?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
}

/**
 * Prints a plan for the copy at TARGET, and with `--yes` repairs it.
 * @throws {@link UsageError} if TARGET is empty; the errors of {@link repairIn}.
 */
export async function repair(target: string, { yes = false, json = false, metadata }: RepairFlags): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: json });
  const interruption = listenForInterruption();
  try {
    if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
    const plan = await repairIn(systemEnvironment, {
      fileSystem: nodeFileSystem('.', { readOnly: !yes }),
      target,
      metadata,
      apply: yes,
      signal: interruption.signal,
      onPlan: (plan) => {
        if (!json) process.stdout.write(describe(target, plan));
      },
    });
    const isRepaired = yes && plan.problems.length > 0;
    emit('done', { target, ...plan, isRepaired });
    if (json || plan.problems.length === 0) return;
    const saved = `the old metadata is kept in ${plan.saved.join(', ')}`;
    process.stderr.write(
      `${target}: ${isRepaired ? `repaired; ${saved}` : 'nothing was changed: pass --yes to repair it'}\n`,
    );
  } catch (error) {
    emitError(emit, error);
    throw error;
  } finally {
    interruption.stop();
  }
}

function describe(target: string, plan: RepairPlan): string {
  const { problems, size, copiedBytes, modifiedBytes, lostBytes, lost: extents, losesIdentity } = plan;
  if (problems.length === 0) return `${target}: nothing is damaged\n`;
  const written = modifiedBytes === 0 ? '' : `, of which users wrote at most ${formatBytes(modifiedBytes)}`;
  const lost =
    lostBytes === 0
      ? 'nothing that users wrote'
      : `at most ${formatBytes(lostBytes)} that users wrote; these bytes are copied from the source again`;
  return [
    ...problems.map((problem) => `damaged   ${problem}`),
    `survives  ${formatBytes(copiedBytes)} of ${formatBytes(size)}${written}`,
    `lost      ${lost}`,
    ...(lostBytes === 0 ? [] : [`within    ${placesOf(extents)}`]),
    ...(losesIdentity ? ['lost      the identity of the source: resume the copy from the same source only'] : []),
    '',
  ].join('\n');
}

function placesOf(extents: RepairPlan['lost']): string {
  const named = extents.slice(0, PLACES).map(({ offset, length }) => `${offset} to ${offset + length - 1}`);
  const rest = extents.length - named.length;
  return `bytes ${named.join(', ')}${rest > 0 ? `, and ${counted(rest, 'more extent')} (--json lists all)` : ''}`;
}
