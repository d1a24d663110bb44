/** What watches a command while it runs: metrics. */

import { jsonLines } from './json-lines.ts';
import type { MetricsAddress } from './metrics/address.ts';

export interface MonitoringFlags {
  /** Where metrics are served. */
  readonly metrics?: MetricsAddress;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/**
 * Runs `command`. What watches it begins before, so an address that cannot be used is an error before a copy begins.
 * @throws the error of `command`; the errors of `openMetrics`
 */
export async function monitored(flags: MonitoringFlags, command: () => Promise<void>): Promise<void> {
  if (flags.metrics === undefined) return command();
  const { openMetrics } = await import('./metrics/metrics.ts');
  const metrics = await openMetrics(flags.metrics);
  try {
    jsonLines(process.stdout, { enabled: flags.json === true })('metrics', { url: metrics.url });
    if (!flags.quiet && !flags.json) process.stderr.write(`metrics at ${metrics.url}\n`);
    await command();
  } finally {
    metrics.close();
  }
}
