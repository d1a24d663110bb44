/**
 * A fleet of machines that boot from one image while they copy it, as discrete events.
 *
 * Copies are fluid: between two events every group of machines has one rate, which links.ts shares out. Reads of a
 * boot are events. They take bytes of their machine's share, so they change no rate.
 *
 * Invariants:
 * - The bytes of a machine are those that it received less those that a crash took. Complete means the whole image.
 * - A relay receives each byte of the image once.
 * - The same options give the same result: all randomness comes from the seed, and equal times keep their order.
 */

import { type Random, seededRandom } from '../../src/testing/random.ts';
import { bytesOf, connectionRate, type Group, type Machine } from './group.ts';
import { Heap } from './heap.ts';
import { shareLinks } from './links.ts';
import { assumed, measured } from './measured.ts';
import type { FleetOptions, FleetResult } from './options.ts';
import { RateSeries } from './rate-series.ts';
import { cacheReadSeconds, peerReadSeconds, type Relay } from './relay.ts';
import { makeTopology, ORIGIN } from './topology.ts';

/** Two positions that differ by less are equal, in bytes. */
const NEAR = 1;
/** A read that nothing can answer is tried again after this time. */
const AGAIN_SECONDS = 1;

interface Read {
  readonly position: number;
  readonly bytes: number;
}

export function simulate(options: FleetOptions): FleetResult {
  return new Fleet(options).run();
}

class Fleet {
  readonly #options: FleetOptions;
  readonly #random: Random;
  readonly #events = new Heap<() => void>();
  readonly #machines: Machine[];
  readonly #reads: Read[];
  readonly #capacities: number[];
  readonly #direct: readonly Group[];
  readonly #relays: readonly Relay[];
  readonly #relayOf: readonly (Relay | undefined)[];
  readonly #groups: readonly Group[];
  readonly #waiting = new Set<Machine>();
  #now = 0;
  #isShared = false;
  /** Until when bytes are counted. */
  #countedTo = 0;
  #nextMark = Number.POSITIVE_INFINITY;
  #isOriginAway = false;
  #originLoad = 0;
  #relayLoad = 0;
  #originBytes = 0;
  #relayBytes = 0;
  #peakOriginRate = 0;
  #peakLoad = 0;
  readonly #series = new RateSeries();

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    const { capacities, direct, relays, relayOf } = makeTopology(options);
    this.#capacities = capacities;
    this.#direct = direct;
    this.#relays = relays;
    this.#relayOf = relayOf;
    this.#groups = [...this.#direct, ...this.#relays.flatMap(({ edge, behind }) => [edge, ...behind.values()])];
    this.#machines = Array.from({ length: options.machines }, (_, index) => this.#makeMachine(index));
    this.#reads = this.#makeReads();
    this.#schedule();
  }

  #makeMachine(index: number): Machine {
    const { racks, stormSeconds } = this.#options;
    const machine: Machine = {
      ...{ index, rack: index % racks, startsAt: this.#chance() * stormSeconds },
      ...{ group: undefined, offset: 0, ticket: 0, life: 0, isUp: false },
      ...{ demandBytes: 0, nextRead: 0, fetchedReads: 0, receivedBytes: 0, lostBytes: 0 },
      ...{ bootedAt: undefined, completedAt: undefined },
    };
    return machine;
  }

  /** The reads of a boot: the same on all machines, since the image is the same. */
  #makeReads(): Read[] {
    const { bootReads, bootBytes, imageBytes, isOrdered } = this.#options;
    const bytes = bootBytes / bootReads;
    const places = Math.max(1, Math.floor(imageBytes / bytes));
    return Array.from({ length: bootReads }, (_, index) => ({
      position: (isOrdered ? index : this.#random.below(places)) * bytes,
      bytes,
    }));
  }

  #schedule(): void {
    const { originAway, cacheAway, crashes, stormSeconds } = this.#options;
    for (const machine of this.#machines) this.#events.push(machine.startsAt, () => this.#start(machine));
    if (originAway !== undefined) {
      const [from, to] = originAway;
      this.#events.push(from, () => this.#loseOrigin());
      this.#events.push(to, () => this.#findOrigin(to - from));
    }
    const [first] = this.#relays;
    if (cacheAway !== undefined && first !== undefined) {
      const [from, to] = cacheAway;
      this.#events.push(from, () => this.#loseRelay(first));
      if (to !== undefined) this.#events.push(to, () => this.#findRelay(first, to - from));
    }
    for (const machine of this.#machines) {
      if (this.#chance() >= crashes) continue;
      const at = Math.max(machine.startsAt, this.#chance() * (stormSeconds + 60));
      this.#events.push(at, () => this.#crash(machine));
    }
  }

  run(): FleetResult {
    for (;;) {
      if (!this.#isShared) this.#share();
      const next = Math.min(this.#nextMark, this.#events.leastKey);
      if (next === Number.POSITIVE_INFINITY) break;
      this.#now = next;
      if (this.#nextMark <= this.#events.leastKey) this.#reachMarks();
      else this.#events.pop()!();
    }
    return this.#result();
  }

  #chance(): number {
    return this.#random.below(2 ** 32) / 2 ** 32;
  }

  /** Called before anything changes that rates depend on. */
  #change(): void {
    const seconds = this.#now - this.#countedTo;
    if (seconds > 0) {
      this.#series.add(this.#countedTo, this.#now, this.#originLoad);
      this.#originBytes += this.#originLoad * seconds;
      this.#relayBytes += this.#relayLoad * seconds;
      for (const group of this.#groups) group.advance(this.#now);
      this.#countedTo = this.#now;
    }
    this.#isShared = false;
  }

  #share(): void {
    this.#change();
    this.#capacities[ORIGIN] = this.#isOriginAway ? 0 : this.#options.originRate;
    const active = this.#groups.filter(({ count }) => count > 0);
    shareLinks(this.#capacities, active);
    this.#measureLoads(active);
    this.#nextMark = Number.POSITIVE_INFINITY;
    for (const group of active) this.#nextMark = Math.min(this.#nextMark, this.#now + this.#secondsToMark(group));
    this.#isShared = true;
  }

  #measureLoads(active: readonly Group[]): void {
    const loads = new Float64Array(this.#capacities.length);
    for (const { rate, loads: own } of active) for (const { link, weight } of own) loads[link]! += rate * weight;
    loads.forEach((load, link) => {
      if (load > 0) this.#peakLoad = Math.max(this.#peakLoad, load / this.#capacities[link]!);
    });
    this.#originLoad = loads[ORIGIN]!;
    this.#relayLoad = this.#relays.reduce((sum, { link }) => sum + loads[link]!, 0);
    this.#peakOriginRate = Math.max(this.#peakOriginRate, this.#originLoad);
  }

  /** The relay that a group is behind of. */
  #relayBehind(group: Group, machine: Machine): Relay | undefined {
    const relay = this.#relayOf[machine.rack];
    return relay?.behind.get(machine.rack) === group ? relay : undefined;
  }

  /** Seconds until the first machine of a group is complete, or reaches the edge of its relay. */
  #secondsToMark(group: Group): number {
    const machine = group.first()!;
    const bytes = bytesOf(machine, this.#now);
    const edge = this.#relayBehind(group, machine)?.edge;
    const mark = edge?.progress(this.#now) ?? this.#options.imageBytes;
    const speed = group.rate - (edge?.rate ?? 0);
    const toEdge = speed > 0 ? Math.max(0, mark - bytes) / speed : Number.POSITIVE_INFINITY;
    const toEnd = group.rate > 0 ? (this.#options.imageBytes - bytes) / group.rate : Number.POSITIVE_INFINITY;
    return Math.max(0, Math.min(toEdge, toEnd));
  }

  #reachMarks(): void {
    this.#change();
    for (const group of this.#groups) {
      for (let machine = group.first(); machine !== undefined; machine = group.first()) {
        const bytes = bytesOf(machine, this.#now);
        const relay = this.#relayBehind(group, machine);
        if (bytes >= this.#options.imageBytes - NEAR) this.#complete(machine);
        else if (relay !== undefined && bytes >= relay.edge.progress(this.#now) - NEAR) {
          this.#leave(machine);
          this.#join(machine);
        } else break;
      }
    }
  }

  #complete(machine: Machine): void {
    this.#leave(machine);
    machine.completedAt = this.#now;
  }

  #leave(machine: Machine): void {
    const { group } = machine;
    if (group === undefined) return;
    this.#change();
    group.leave(machine, this.#now);
    machine.receivedBytes = machine.offset + machine.lostBytes;
  }

  /** Continues the copy of a machine, or lets it wait for what is away. */
  #join(machine: Machine): void {
    this.#waiting.delete(machine);
    const group = this.#groupFor(machine);
    if (group === undefined) {
      machine.ticket++;
      this.#waiting.add(machine);
      return;
    }
    this.#change();
    group.join(machine, this.#now);
  }

  #groupFor(machine: Machine): Group | undefined {
    const relay = this.#relayOf[machine.rack];
    const isForever = this.#options.cacheAway?.[1] === undefined;
    if (relay === undefined || (relay.isAway && isForever))
      return this.#isOriginAway ? undefined : this.#direct[machine.rack];
    if (relay.isAway) return undefined;
    if (machine.offset < relay.edge.progress(this.#now) - NEAR) return relay.behind.get(machine.rack);
    return this.#isOriginAway ? undefined : relay.edge;
  }

  /** Notes that a machine is up or down. A peer sends while it is up. */
  #setUp(machine: Machine, isUp: boolean): void {
    this.#change();
    machine.isUp = isUp;
    const { way, uploadRate } = this.#options;
    if (way !== 'rack-peers' && way !== 'peers') return;
    this.#capacities[this.#relayOf[machine.rack]!.link]! += (isUp ? 1 : -1) * uploadRate * assumed.peerEfficiency;
  }

  #start(machine: Machine): void {
    this.#setUp(machine, true);
    machine.life++;
    machine.nextRead = 0;
    const { life } = machine;
    this.#events.push(this.#now + measured.startSeconds, () => {
      if (machine.life !== life) return;
      if (machine.completedAt === undefined) this.#join(machine);
      // Not before the rates are known.
      this.#events.push(this.#now, () => this.#readNext(machine, life));
    });
  }

  #crash(machine: Machine): void {
    if (!machine.isUp || machine.completedAt !== undefined) return;
    this.#change();
    this.#leave(machine);
    this.#waiting.delete(machine);
    machine.ticket++;
    machine.life++;
    this.#setUp(machine, false);
    const lost = this.#chance() * Math.min(machine.offset, this.#options.lostBytes);
    machine.offset -= lost;
    machine.lostBytes += lost;
    machine.fetchedReads = Math.max(machine.fetchedReads, lost === 0 ? machine.nextRead : 0);
    this.#events.push(this.#now + this.#options.downSeconds, () => this.#start(machine));
  }

  #loseOrigin(): void {
    this.#change();
    this.#isOriginAway = true;
    this.#rejoinAll([...this.#direct, ...this.#relays.map(({ edge }) => edge)]);
  }

  #findOrigin(awaySeconds: number): void {
    this.#change();
    this.#isOriginAway = false;
    this.#retryAll(awaySeconds);
  }

  #loseRelay(relay: Relay): void {
    this.#change();
    relay.isAway = true;
    this.#rejoinAll([relay.edge, ...relay.behind.values()]);
  }

  #findRelay(relay: Relay, awaySeconds: number): void {
    this.#change();
    relay.isAway = false;
    this.#retryAll(awaySeconds);
  }

  #rejoinAll(groups: readonly Group[]): void {
    for (const group of groups) {
      for (let machine = group.first(); machine !== undefined; machine = group.first()) {
        this.#leave(machine);
        // Machines of other groups would be let in again, so this one is not yet asked where it belongs.
        this.#waiting.add(machine);
      }
    }
    for (const machine of [...this.#waiting]) this.#join(machine);
  }

  /** Machines that wait try again after their delays, which have grown while they waited. */
  #retryAll(awaySeconds: number): void {
    const delay = Math.min(measured.retrySeconds, awaySeconds);
    for (const machine of this.#waiting) {
      const { ticket } = machine;
      this.#events.push(this.#now + this.#chance() * delay, () => {
        if (machine.ticket === ticket) this.#join(machine);
      });
    }
  }

  #readNext(machine: Machine, life: number): void {
    if (machine.life !== life) return;
    if (machine.nextRead >= this.#reads.length) {
      machine.bootedAt ??= this.#now;
      return;
    }
    const seconds = this.#readSeconds(machine, this.#reads[machine.nextRead]!);
    if (seconds !== undefined) machine.nextRead++;
    const think = this.#options.guestSeconds / this.#reads.length;
    const at = this.#now + (seconds === undefined ? AGAIN_SECONDS : seconds + think);
    this.#events.push(at, () => this.#readNext(machine, life));
  }

  /** Seconds of a read, or undefined if nothing can answer it now. */
  #readSeconds(machine: Machine, { position, bytes }: Read): number | undefined {
    const copied = bytesOf(machine, this.#now);
    const background = Math.max(0, copied - machine.demandBytes);
    const isHere = machine.completedAt !== undefined || machine.nextRead < machine.fetchedReads;
    const missing = position + bytes - background;
    if (isHere || missing <= 0) return measured.localReadSeconds;
    const rate = machine.group?.rate ?? 0;
    const own = machine.group === undefined ? 0 : connectionRate(machine.group);
    const fetch = this.#fetchSeconds(machine, { position, bytes }, own);
    const sooner = rate > 0 ? missing / rate : Number.POSITIVE_INFINITY;
    if (fetch === undefined) return sooner < Number.POSITIVE_INFINITY ? sooner : undefined;
    if (sooner <= fetch) return sooner;
    const fetched = Math.min(bytes, this.#options.imageBytes - copied);
    machine.demandBytes += fetched;
    if (machine.group === undefined) {
      // The copy waits for the origin, and the relay has these bytes.
      machine.offset += fetched;
      machine.receivedBytes = machine.offset + machine.lostBytes;
      this.#relayBytes += fetched;
    }
    return fetch + measured.coldReadSeconds;
  }

  #fetchSeconds(machine: Machine, { position, bytes }: Read, rate: number): number | undefined {
    const { way, originSeconds, imageBytes, machineRate } = this.#options;
    const relay = this.#relayOf[machine.rack];
    const isDirect = relay === undefined || this.#direct[machine.rack] === machine.group;
    if (isDirect) return rate > 0 ? originSeconds + bytes / rate : undefined;
    if (relay.isAway) return undefined;
    const count = [...relay.behind.values()].reduce((sum, group) => sum + group.count, 1);
    const spare = Math.min(machineRate, this.#capacities[relay.link]! / count);
    const fill = relay.edge.count > 0 ? connectionRate(relay.edge) : this.#spareOfOrigin();
    const read = {
      ...{ position, bytes, now: this.#now, imageBytes, originSeconds },
      ...{ rate: rate > 0 ? rate : spare, fillRate: this.#isOriginAway ? 0 : fill },
      chance: way === 'rack-cache' ? 0 : this.#chance(),
    };
    return way === 'rack-cache' ? cacheReadSeconds(relay, read) : peerReadSeconds(relay, read);
  }

  /** What one more flow would get of the origin. */
  #spareOfOrigin(): number {
    const flows = this.#groups.reduce((sum, { loads }) => {
      return sum + loads.reduce((own, { link, weight }) => own + (link === ORIGIN ? weight : 0), 0);
    }, 1);
    return Math.min(this.#options.originRate / flows, this.#options.uplinkRate);
  }

  #result(): FleetResult {
    const sorted = (of: (machine: Machine) => number | undefined): number[] =>
      this.#machines
        .map((machine) => (of(machine) ?? Number.POSITIVE_INFINITY) - machine.startsAt)
        .sort((one, other) => one - other);
    return {
      bootSeconds: sorted(({ bootedAt }) => bootedAt),
      completeSeconds: sorted(({ completedAt }) => completedAt),
      endSeconds: this.#machines.reduce(
        (end, { completedAt }) => Math.max(end, completedAt ?? Number.POSITIVE_INFINITY),
        0,
      ),
      originBytes: this.#originBytes,
      relayBytes: this.#relayBytes,
      peakOriginRate: this.#peakOriginRate,
      originRates: this.#series.result(),
      peakLoad: this.#peakLoad,
      receivedBytes: this.#machines.map(({ receivedBytes }) => receivedBytes),
      lostBytes: this.#machines.map(({ lostBytes }) => lostBytes),
    };
  }
}
