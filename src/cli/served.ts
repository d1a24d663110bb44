/** A channel inside the command, for its metrics and its log: an export has begun to serve a copy. */

import { type Channel, channel } from 'node:diagnostics_channel';

/** A message of {@link SERVED}. */
export interface ServedMessage {
  readonly export: string;
  readonly target: string;
  /** Without secrets; null: none. */
  readonly source: string | null;
  /** Where clients connect. */
  readonly uri: string;
}

export const SERVED: Channel = channel('copyondemand:served');
