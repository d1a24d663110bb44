/**
 * How many streams are worth it with a server, for later copies of this process: each would search again, for half a
 * second of a copy of five. A page makes too few copies for that.
 */

import type { Governor } from './governor.ts';
import type { Origin } from './origin.ts';

/** A copy, as far as it concerns others from the same server. */
export type StreamUser = Pick<Governor, 'stretchCount'> & {
  readonly limiter: Pick<Governor['limiter'], 'rate'>;
  readonly options: Pick<Governor['options'], 'concurrency'>;
};

/** The servers that are remembered, at most. */
const MAX_PLACES = 256;

/** The last copy from each server, which may have ended. The server that was not used for longest is the first. */
const users = new Map<string, StreamUser>();
const begun = new WeakSet<StreamUser>();

/**
 * Lets a copy begin with as many streams as the last one has. No effect on a copy that has begun, or whose user has
 * decided how many streams there are, or how fast they are.
 * @param origin has its source. Without one, or if nothing names its server, nothing is shared.
 */
export function shareStreams(user: StreamUser, origin: Pick<Origin, 'source'>): void {
  const place = origin.source?.place;
  const isBounded = user.options.concurrency !== undefined || user.limiter.rate !== undefined;
  if (place === undefined || isBounded || begun.has(user)) return;
  user.stretchCount = users.get(place)?.stretchCount ?? user.stretchCount;
  begun.add(user);
  users.delete(place);
  users.set(place, user);
  if (users.size > MAX_PLACES) users.delete(users.keys().next().value!);
}
