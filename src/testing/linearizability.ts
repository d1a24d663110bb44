/**
 * Checks that a disk is linearizable: each sector behaves as if each request took effect at one moment between its
 * beginning and its end. The method is that of P. B. Gibbons and E. Korach, "Testing Shared Memories", SIAM Journal on
 * Computing 26 (4), 1997: with a different content in each write, no search is needed.
 *
 * The accesses of one content, its write and its reads, are a *cluster*. They follow each other without an access of
 * another content between them. So a cluster is ordered as a whole:
 *
 *   a precedes b  ⇔  first(a) < last(b)
 *
 * `first` is the first end of an access of the cluster, `last` the last beginning. The interval between them is the
 * *zone*: forward if first < last, else backward. Within a forward zone the sector surely has this content.
 * The sector is linearizable if and only if no two clusters precede each other: no two forward zones overlap, and no
 * backward zone lies within a forward one.
 *
 * A power cut divides the time into *epochs*. What it leaves is the first content of the next epoch, and durable:
 *
 * - All later accesses of older contents must be of one content, the one that was left.
 * - The cluster of that content must not have to precede that of a durable write: no chain of clusters, each of which
 *   precedes the next, leads from the one to the other.
 */

import type { SectorCrash, SectorHistory, SectorRequest } from './sector-history.ts';

/** Shows that a history is not linearizable. */
export interface LinearizabilityViolation {
  /** The number of the sector: its offset in units of the sector. */
  readonly sector: number;
  /**
   * - `unwritten`: a read returned a content that the sector never had. It may be torn, or of another sector.
   * - `early`: a read ended before the write of its content began.
   * - `order`: two contents would have to precede each other. A stale read is one case.
   * - `lost`: a power cut left a content that is older than a durable write.
   */
  readonly reason: 'unwritten' | 'early' | 'order' | 'lost';
  /** The requests that contradict each other, in the order in which they began. No other request is needed. */
  readonly requests: readonly SectorRequest[];
  /** Explains the contradiction. Requests have their numbers, and times are counts of events. */
  readonly message: string;
}

/**
 * Looks for a sector that is not linearizable. Returns undefined if each sector is linearizable. Otherwise returns the
 * violation with the fewest requests, and of these the earliest.
 *
 * What is checked, for each sector on its own:
 *
 * - A request of several sectors is one access of each of them: disks promise no more than whole sectors.
 * - A write without an answer counts or not. It takes effect before the next crash, or at any later time if there is
 *   none. A read without an answer is ignored.
 * - A process crash loses nothing that was acknowledged.
 * - A power cut leaves a content that the sector has had since its last durable write. A write is durable if it was
 *   acknowledged and had FUA, or if it was acknowledged before the beginning of a flush that ended before the cut.
 * - What a power cut leaves is durable: another power cut does not take it back.
 *
 * What is not checked:
 *
 * - The order of different sectors after a power cut: one may be newer than the other.
 * - Writes of the same bytes, such as zeroing, which {@link SectorHistory} does not take.
 * - That requests end.
 *
 * Takes O(n log n) time for n accesses of a sector and a few crashes.
 *
 * @param history may contain requests in flight, which then count as requests without an answer
 * @example
 * ```ts
 * import { checkLinearizable, SectorHistory } from 'copyondemand/testing';
 *
 * const history = new SectorHistory();
 * for (const value of [1, 2]) history.beginWrite(new Uint8Array(512).fill(value), 0)();
 * history.beginRead(0, 512)(new Uint8Array(512).fill(1));
 * console.log(checkLinearizable(history)?.reason); // order
 * ```
 */
export function checkLinearizable(history: SectorHistory): LinearizabilityViolation | undefined {
  const sectors = new Map<number, Access[]>();
  for (const request of history.requests) {
    const { kind, firstSector, contents, began, ended } = request;
    // A write without an answer took effect before the next crash, if it did.
    const crash = ended === undefined ? history.crashes.find(({ at }) => at > began) : undefined;
    const before = ended ?? crash?.at ?? Number.POSITIVE_INFINITY;
    for (const [index, content] of contents.entries()) {
      const sector = firstSector + index;
      const accesses = sectors.get(sector) ?? [];
      if (accesses.length === 0) sectors.set(sector, accesses);
      accesses.push({ request, isWrite: kind === 'write', content, before });
    }
  }
  const epochs = epochsOf(history);
  let found: LinearizabilityViolation | undefined;
  for (const [sector, accesses] of sectors) {
    const violation = violationIn(new Sector(sector, accesses, history), epochs, history.requests);
    if (violation !== undefined && (found === undefined || isSimpler(violation, found))) found = violation;
  }
  return found;
}

function isSimpler(one: LinearizabilityViolation, other: LinearizabilityViolation): boolean {
  const more = one.requests.length - other.requests.length;
  return more < 0 || (more === 0 && one.requests.at(-1)!.number < other.requests.at(-1)!.number);
}

/** One request's access of one sector. */
interface Access {
  readonly request: SectorRequest;
  readonly isWrite: boolean;
  readonly content: number;
  /** The access takes effect before this time. */
  readonly before: number;
}

/** The time between two power cuts. */
interface Epoch {
  readonly start: number;
  readonly end: number;
  /** The flush that covers most, of those that ended in this epoch. */
  flush: SectorRequest | undefined;
}

function epochsOf({ crashes, requests }: SectorHistory): Epoch[] {
  const cuts = crashes.filter(({ kind }) => kind === 'power').map(({ at }) => at);
  const epochs = [0, ...cuts].map(
    (start, index): Epoch => ({ start, end: cuts[index] ?? Number.POSITIVE_INFINITY, flush: undefined }),
  );
  let index = 0;
  for (const request of requests) {
    while (request.began > epochs[index]!.end) index++;
    if (request.kind === 'flush' && request.ended !== undefined) epochs[index]!.flush = request;
  }
  return epochs;
}

/** A moment at which a sector surely had a content, or would have it again. Without a request: after a power cut. */
interface Moment {
  readonly at: number;
  readonly request: SectorRequest | undefined;
}

/** The accesses of one content in one epoch. */
class Cluster {
  readonly content: number;
  /** The write of the content, perhaps in an earlier epoch. Undefined for the initial content. */
  readonly write: SectorRequest | undefined;
  /** Whether the content was there when the epoch began. */
  isInherited = false;
  first: Moment = { at: Number.POSITIVE_INFINITY, request: undefined };
  last: Moment = { at: Number.NEGATIVE_INFINITY, request: undefined };

  constructor(content: number, write: SectorRequest | undefined) {
    this.content = content;
    this.write = write;
  }

  add({ request, before }: Access): void {
    this.#extend({ at: before, request }, { at: request.began, request });
  }

  /** The content is there from the beginning: as if it was written at that moment, and read at the next. */
  inherit({ start }: Epoch): void {
    this.isInherited = true;
    this.#extend({ at: start, request: undefined }, { at: start + 1, request: undefined });
  }

  #extend(first: Moment, last: Moment): void {
    if (first.at < this.first.at) this.first = first;
    if (last.at > this.last.at) this.last = last;
  }

  /** Whether the sector has this content before it has the content of `other`. */
  precedes(other: Cluster): boolean {
    return this !== other && this.first.at < other.last.at;
  }

  /** Whether each power cut at the end of this epoch leaves this content or a later one. */
  isDurableIn({ flush }: Epoch): boolean {
    if (this.isInherited || this.write?.ended === undefined) return false;
    return this.write.fua || (flush !== undefined && this.write.ended < flush.began);
  }

  /** The requests that say where the cluster stands. */
  get requests(): readonly (SectorRequest | undefined)[] {
    return [this.write, this.first.request, this.last.request];
  }

  get name(): string {
    return this.write === undefined ? 'the initial content' : nameOf(this.write);
  }

  /** Says why the content was there at the first moment. */
  get firstText(): string {
    const { request, at } = this.first;
    if (request === undefined) return at === 0 ? 'it was there first' : `the power cut at ${at} left it`;
    return `${this.#accessText(request)} ${request.ended === undefined ? 'could take effect until' : 'ended at'} ${at}`;
  }

  /** Says why the content was there at the last moment. */
  get lastText(): string {
    const { request, at } = this.last;
    return request === undefined ? `it was there at ${at}` : `${this.#accessText(request)} began at ${at}`;
  }

  #accessText(request: SectorRequest): string {
    return request === this.write ? nameOf(request) : `${nameOf(request)} of ${this.name}`;
  }
}

function nameOf({ kind, number, by }: SectorRequest): string {
  return `${kind} ${number}${by === undefined ? '' : ` by ${by}`}`;
}

/** The accesses of one sector. */
class Sector {
  readonly #number: number;
  readonly #crashes: readonly SectorCrash[];
  readonly initial: number;
  readonly reads: readonly Access[];
  /** The write of each content. */
  readonly writes: ReadonlyMap<number, Access>;

  constructor(number: number, accesses: readonly Access[], history: SectorHistory) {
    this.#number = number;
    this.#crashes = history.crashes;
    this.initial = history.initialContent(number);
    this.reads = accesses.filter(({ isWrite }) => !isWrite);
    this.writes = new Map(accesses.filter(({ isWrite }) => isWrite).map((access) => [access.content, access]));
  }

  /** Returns the clusters of each epoch. Each read must be of a content that was written, or of the initial one. */
  clusters(epochs: readonly Epoch[]): Map<number, Cluster>[] {
    const clusters = epochs.map(() => new Map<number, Cluster>());
    const clusterIn = (epoch: number, content: number): Cluster => {
      const cluster = clusters[epoch]!.get(content) ?? new Cluster(content, this.writes.get(content)?.request);
      clusters[epoch]!.set(content, cluster);
      return cluster;
    };
    const epochOf = ({ request }: Access): number => epochs.findIndex(({ end }) => request.began < end);
    clusterIn(0, this.initial).inherit(epochs[0]!);
    /** The last epoch in which each content is known to have been there. */
    const lastOf = new Map<number, number>([[this.initial, 0]]);
    const wasRead = new Set(this.reads.map(({ content }) => content));
    for (const write of this.writes.values()) {
      // Without an answer and a read, a write need not count.
      if (write.request.ended === undefined && !wasRead.has(write.content)) continue;
      clusterIn(epochOf(write), write.content).add(write);
      lastOf.set(write.content, epochOf(write));
    }
    for (const read of this.reads) {
      const epoch = epochOf(read);
      for (let next = lastOf.get(read.content)! + 1; next <= epoch; next++) {
        clusterIn(next, read.content).inherit(epochs[next]!);
        lastOf.set(read.content, next);
      }
      clusterIn(epoch, read.content).add(read);
    }
    return clusters;
  }

  /** Returns the first read of a content after a time. */
  firstRead(content: number, after: number): SectorRequest | undefined {
    return this.reads.find(({ request, content: found }) => found === content && request.began > after)?.request;
  }

  violation(
    reason: LinearizabilityViolation['reason'],
    text: string,
    involved: readonly (SectorRequest | undefined)[],
  ): LinearizabilityViolation {
    const all = new Set(involved.filter((request) => request !== undefined));
    let why = text;
    for (const [content, { request }] of this.writes) {
      // Without an answer, a write counts because a read saw it.
      if (!all.has(request) || request.ended !== undefined) continue;
      const read = this.firstRead(content, 0)!;
      if (all.has(read)) continue;
      all.add(read);
      why += `; ${nameOf(read)} saw ${nameOf(request)}`;
    }
    const requests = [...all].sort((one, other) => one.number - other.number);
    const crashes = crashesAmong(this.#crashes, requests);
    return { sector: this.#number, reason, requests, message: `sector ${this.#number}: ${why}${crashes}` };
  }
}

/** Looks for a read of what was never written, or is written later. */
function wrongRead(sector: Sector, requests: readonly SectorRequest[]): LinearizabilityViolation | undefined {
  for (const { request, content } of sector.reads) {
    if (content === sector.initial) continue;
    const write = sector.writes.get(content)?.request;
    if (write === undefined) {
      const elsewhere = requests.find(({ kind, contents }) => kind === 'write' && contents.includes(content));
      const of = elsewhere === undefined ? '' : `, but ${nameOf(elsewhere)} wrote it to another sector`;
      const text = `${nameOf(request)} returned a content that the sector never had${of}`;
      return sector.violation('unwritten', text, [request]);
    }
    if (request.ended! < write.began) {
      const ended = `${nameOf(request)} of ${nameOf(write)} ended at ${request.ended}`;
      return sector.violation('early', `${ended}, before ${nameOf(write)} began at ${write.began}`, [request, write]);
    }
  }
  return undefined;
}

/** Looks for two contents of an epoch that precede each other. */
function wrongOrder(
  sector: Sector,
  clusters: readonly Cluster[],
  { start }: Epoch,
): LinearizabilityViolation | undefined {
  const pair = contradiction(clusters);
  if (pair === undefined) return undefined;
  const [one, other] = pair;
  const involved = [...one.requests, ...other.requests];
  if (!one.isInherited || !other.isInherited)
    return sector.violation('order', `${reasonOf(one, other)}; ${reasonOf(other, one)}`, involved);
  const reads = pair.map(({ content }) => sector.firstRead(content, start));
  const text = `the power cut at ${start} left ${one.name}, but also ${other.name}`;
  return sector.violation('order', text, [...involved, ...reads]);
}

/** Looks for a durable write that is newer than what the power cut at the end of an epoch left. */
function lostWrite(
  sector: Sector,
  clusters: readonly Cluster[],
  { epoch, left }: { epoch: Epoch; left: Cluster | undefined },
): LinearizabilityViolation | undefined {
  const chain = left && chainToDurable(left, clusters, epoch);
  if (chain === undefined) return undefined;
  const durable = chain.at(-1)!;
  const flush = durable.write!.fua ? undefined : epoch.flush;
  const read = sector.firstRead(left!.content, epoch.end)!;
  const reasons = chain.slice(1).map((cluster, index) => reasonOf(chain[index]!, cluster));
  const text =
    `${nameOf(read)} found ${left!.name} after the power cut at ${epoch.end}; ${reasons.join('; ')}; ` +
    `${durable.name} was durable by ${flush === undefined ? 'FUA' : nameOf(flush)}`;
  return sector.violation('lost', text, [read, flush, ...chain.flatMap(({ requests }) => requests)]);
}

function violationIn(
  sector: Sector,
  epochs: readonly Epoch[],
  requests: readonly SectorRequest[],
): LinearizabilityViolation | undefined {
  const wrong = wrongRead(sector, requests);
  if (wrong !== undefined) return wrong;
  const clustersOf = sector.clusters(epochs);
  for (const [index, epoch] of epochs.entries()) {
    const clusters = [...clustersOf[index]!.values()];
    const left = clusters.find(({ content }) => clustersOf[index + 1]?.get(content)?.isInherited);
    const violation = wrongOrder(sector, clusters, epoch) ?? lostWrite(sector, clusters, { epoch, left });
    if (violation !== undefined) return violation;
  }
  return undefined;
}

function reasonOf(one: Cluster, other: Cluster): string {
  return `${one.name} precedes ${other.name}, as ${one.firstText} and ${other.lastText}`;
}

/** Finds two clusters that precede each other. */
function contradiction(clusters: readonly Cluster[]): [Cluster, Cluster] | undefined {
  // As long as forward zones do not overlap, only the latest of them can reach beyond the next `first`.
  let forward: Cluster | undefined;
  for (const cluster of [...clusters].sort((one, other) => one.first.at - other.first.at)) {
    if (forward?.precedes(cluster) && cluster.precedes(forward)) return [forward, cluster];
    if (cluster.first.at < cluster.last.at) forward = cluster;
  }
  return undefined;
}

/**
 * Finds clusters, each of which precedes the next, that lead from the content that a power cut left to a durable one.
 * Without contradictions there is at most one cluster between them.
 */
function chainToDurable(left: Cluster, clusters: readonly Cluster[], epoch: Epoch): Cluster[] | undefined {
  const chain = [left];
  for (let end = left; ; ) {
    const later = clusters.filter((cluster) => end.precedes(cluster));
    const durable = later.find((cluster) => cluster !== left && cluster.isDurableIn(epoch));
    if (durable !== undefined) return [...chain, durable];
    // The cluster with the earliest `first` precedes all that the others precede.
    const next = later.reduce((one, other) => (other.first.at < one.first.at ? other : one), end);
    if (next === end) return undefined;
    chain.push(next);
    end = next;
  }
}

/** Names the crashes that came between the requests of a violation. */
function crashesAmong(crashes: readonly SectorCrash[], requests: readonly SectorRequest[]): string {
  const from = requests[0]?.began ?? 0;
  const until = Math.max(0, ...requests.map(({ began, ended }) => ended ?? began));
  const among = crashes.filter(({ at }) => at > from && at < until).map(({ kind, at }) => `${kind} crash at ${at}`);
  return among.length === 0 ? '' : ` (${among.join(', ')})`;
}
