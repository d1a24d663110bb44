/** Explores the scenarios that the parent process names, one at a time. */

import { exploreScenario, lineOf, replayScenario, scenarios } from './campaign.ts';
import type { Job, JobResult } from './jobs.ts';

async function done(job: Job): Promise<JobResult> {
  const scenario = scenarios[job.scenario]!;
  try {
    if (job.replay !== undefined) {
      await replayScenario(scenario, job.replay);
      return { figures: { stories: 1, lives: 0, crashes: 0, operations: 0, bytes: 0 } };
    }
    // Stack traces cost as much as the rest of a life. A replay has them.
    Error.stackTraceLimit = 0;
    return { figures: await exploreScenario(scenario, job.seed) };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const text =
      cause instanceof Error
        ? job.replay === undefined
          ? cause.message
          : (cause.stack ?? cause.message)
        : String(cause);
    return { failure: { name: scenario.name, message: text, line: lineOf(scenario, error, job.seed) } };
  }
}

process.on('message', (job: Job) => {
  void done(job).then((result) => process.send!(result));
});
process.send!({ scenarios: scenarios.map(({ name }) => name) });
