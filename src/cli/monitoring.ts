/** What watches a command while it runs: its log and its metrics. */

import { failureOf, Interrupted, UsageError } from './failure.ts';
import { jsonLines } from './json-lines.ts';
import type { Log } from './log/log.ts';
import { tell } from './log/told.ts';
import type { MetricsAddress } from './metrics/address.ts';
import type { Metrics } from './metrics/metrics.ts';

export interface MonitoringFlags {
  /** Where metrics are served. */
  readonly metrics?: MetricsAddress;
  readonly verbose?: boolean;
  /** Path of the log. */
  readonly log?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/**
 * Runs `command`. What watches it begins before, so an address or a file that cannot be used is an error before a copy
 * begins.
 * @throws the error of `command`; the errors of `openLog` and `openMetrics`; {@link UsageError}
 */
export async function monitored(flags: MonitoringFlags, command: () => Promise<void>): Promise<void> {
  const { verbose = false, log: path, metrics: address } = flags;
  if (verbose && flags.quiet) throw new UsageError('use either --verbose or --quiet');
  let log: Log | undefined;
  let metrics: Metrics | undefined;
  try {
    if (verbose || path !== undefined)
      log = await (await import('./log/log.ts')).openLog({ isShown: verbose, file: path });
    if (address !== undefined) {
      metrics = await (await import('./metrics/metrics.ts')).openMetrics(address);
      jsonLines(process.stdout, { enabled: flags.json === true })('metrics', { url: metrics.url });
      if (!flags.quiet && !flags.json) tell('info', `metrics at ${metrics.url}`);
    }
    await command();
  } catch (error) {
    // The command prints it on stderr when all else has ended.
    const { code, message } = failureOf(error);
    if (error instanceof Interrupted) log?.note('notice', message);
    else log?.note('error', `${code}: ${message}`);
    throw error;
  } finally {
    metrics?.close();
    await log?.close();
  }
}
