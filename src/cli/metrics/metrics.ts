/** `--metrics`: counts, and serves what was counted. */

import { version } from '../version.ts';
import type { MetricsAddress } from './address.ts';
import { Collector } from './collector.ts';
import { MetricsServer } from './server.ts';

export interface Metrics {
  /** Where the metrics are. */
  readonly url: string;
  close(): void;
}

/** Starts to count and to serve. @throws the errors of {@link MetricsServer.open} */
export async function openMetrics(address: MetricsAddress): Promise<Metrics> {
  const collector = new Collector(version());
  try {
    const server = await MetricsServer.open(address, () => collector.text());
    return {
      url: server.url,
      close: () => {
        server.close();
        collector.stop();
      },
    };
  } catch (error) {
    collector.stop();
    throw error;
  }
}
