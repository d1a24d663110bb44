/** What parent and worker say to each other. */

import type { CampaignFigures } from './campaign.ts';

/** What a worker says first. */
export interface Hello {
  readonly scenarios: readonly string[];
}

export interface Job {
  /** Its number in the list of scenarios. */
  readonly scenario: number;
  readonly seed: number;
  /** A story to be told once more, in place of an exploration. */
  readonly replay?: string;
}

export interface Failure {
  readonly name: string;
  readonly message: string;
  /** Replays it. */
  readonly line: string;
}

export interface JobResult {
  readonly figures?: CampaignFigures;
  readonly failure?: Failure;
}
