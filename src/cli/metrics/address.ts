/** Where metrics are served: `HOST:PORT`, or a port of 127.0.0.1. */

import { UsageError } from '../failure.ts';

export interface MetricsAddress {
  readonly host: string;
  readonly port: number;
}

const ADDRESS = /^(?:(?<host>[^:[\]\s/]+|\[[0-9a-f:.%a-z]+\]):)?(?<port>\d{1,5})$/i;

/** @throws {@link UsageError} if the text is no address. */
export function parseMetricsAddress(text: string): MetricsAddress {
  const { host = '127.0.0.1', port } = ADDRESS.exec(text)?.groups ?? {};
  if (port === undefined || Number(port) > 65_535)
    throw new UsageError('Use HOST:PORT or PORT, for example 127.0.0.1:9464, [::1]:9464 or 9464.');
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
}
