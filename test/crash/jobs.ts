/** Messages between parent and worker. */

import type { CampaignFigures } from './campaign.ts';

/** The first message of a worker. */
export interface Hello {
  readonly scenarios: readonly string[];
}

export interface Job {
  /** Index in the list of scenarios. */
  readonly scenario: number;
  readonly seed: number;
  /** The failure to replay, instead of an exploration. */
  readonly replay?: string;
}

export interface Failure {
  readonly name: string;
  readonly message: string;
  /** The line that replays the failure. */
  readonly line: string;
}

export interface JobResult {
  readonly figures?: CampaignFigures;
  readonly failure?: Failure;
}
