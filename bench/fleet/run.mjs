/**
 * Simulates a fleet of machines that boot from one image and copy it.
 *
 * - node bench/fleet/run.mjs [--machines N] [--racks N] [--seed N] [--ways LIST] [--json] with any of:
 * - [--image-mib N] [--storm SECONDS] [--order] [--boot-reads N] [--boot-mb N] [--guest SECONDS]
 * - [--origin-gbit N] [--latency-ms N] [--connection-mb N] [--uplink-gbit N] [--cache-gbit N]
 * - [--machine-gbit N] [--upload-gbit N]
 * - [--origin-away FROM:TO] [--cache-away FROM[:TO]] [--crashes PART] [--down SECONDS] [--lost-mib N]
 * - [--plot NAME.svg] [--plot-rate FILE]
 *
 * Prints a line for each way to distribute the image; options.ts describes the ways. With `--plot` it writes the charts
 * NAME-boot.svg, NAME-complete.svg and NAME-sent.svg for 10 to 10,000 machines. `--plot-rate` writes a chart of the
 * origin's rate over the time of one run.
 * Without `--racks` a rack has 40 machines.
 *
 * The same options print the same lines. Needs no build.
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { runTs } from '../../scripts/run-ts.mjs';
import { lineChart } from '../lib/plot.mjs';

const { values: given } = parseArgs({
  options: {
    machines: { type: 'string', default: '1000' },
    racks: { type: 'string' },
    seed: { type: 'string', default: '1' },
    ways: { type: 'string' },
    json: { type: 'boolean', default: false },
    'image-mib': { type: 'string', default: '2048' },
    storm: { type: 'string', default: '60' },
    order: { type: 'boolean', default: false },
    'boot-reads': { type: 'string' },
    'boot-mb': { type: 'string' },
    guest: { type: 'string' },
    'origin-gbit': { type: 'string', default: '10' },
    'latency-ms': { type: 'string', default: '20' },
    'connection-mb': { type: 'string', default: 'Infinity' },
    'uplink-gbit': { type: 'string', default: '10' },
    'cache-gbit': { type: 'string', default: '25' },
    'machine-gbit': { type: 'string', default: '10' },
    'upload-gbit': { type: 'string', default: '1' },
    'origin-away': { type: 'string' },
    'cache-away': { type: 'string' },
    crashes: { type: 'string', default: '0' },
    down: { type: 'string', default: '60' },
    'lost-mib': { type: 'string' },
    plot: { type: 'string' },
    'plot-rate': { type: 'string' },
  },
});

const MACHINES_OF_A_RACK = 40;
const FLEETS = [10, 30, 100, 300, 1000, 3000, 10_000];
const NAMES = { origin: 'origin alone', 'rack-cache': 'rack caches', 'rack-peers': 'peers of a rack', peers: 'peers' };
const GBIT = 1e9 / 8;

const { simulate, percentile, WAYS, measured } = await runTs(new URL('fleet.ts', import.meta.url));

function number(text, name, least = 0) {
  const value = Number(text);
  if (text === '' || !(value >= least)) {
    console.error(`--${name} ${text}: a number of at least ${least} is needed`);
    process.exit(2);
  }
  return value;
}

function span(name) {
  return given[name]?.split(':').map((part) => number(part, name));
}

const ways = given.ways?.split(',') ?? WAYS;
for (const way of ways) {
  if (WAYS.includes(way)) continue;
  console.error(`--ways ${way}: use ${WAYS.join(', ')}`);
  process.exit(2);
}

function fleet(way, machines) {
  const of = (name, unit, least) => number(given[name], name, least) * unit;
  const own = (name, unit, otherwise) => (given[name] === undefined ? otherwise : of(name, unit));
  const [originAway, cacheAway] = [span('origin-away'), span('cache-away')];
  return simulate({
    way,
    machines,
    racks: own('racks', 1, Math.ceil(machines / MACHINES_OF_A_RACK)),
    seed: of('seed', 1),
    imageBytes: of('image-mib', 2 ** 20, 1),
    stormSeconds: of('storm', 1),
    originRate: of('origin-gbit', GBIT),
    originSeconds: of('latency-ms', 0.001),
    connectionRate: of('connection-mb', 1e6),
    uplinkRate: of('uplink-gbit', GBIT),
    cacheRate: of('cache-gbit', GBIT),
    machineRate: of('machine-gbit', GBIT),
    uploadRate: of('upload-gbit', GBIT),
    bootReads: own('boot-reads', 1, measured.bootReads),
    bootBytes: own('boot-mb', 1e6, measured.bootBytes),
    guestSeconds: own('guest', 1, measured.guestSeconds),
    isOrdered: given.order,
    crashes: of('crashes', 1),
    downSeconds: of('down', 1),
    lostBytes: own('lost-mib', 2 ** 20, measured.unsyncedBytes),
    ...(originAway && { originAway }),
    ...(cacheAway && { cacheAway }),
  });
}

const imageBytes = Number(given['image-mib']) * 2 ** 20;
const rounded = (value, digits = 1) => Number(value.toFixed(digits));

function rowOf(way, result) {
  return {
    way: NAMES[way],
    'boot p50 (s)': rounded(percentile(result.bootSeconds, 0.5)),
    'boot p99 (s)': rounded(percentile(result.bootSeconds, 0.99)),
    'complete p50 (s)': rounded(percentile(result.completeSeconds, 0.5)),
    'complete p99 (s)': rounded(percentile(result.completeSeconds, 0.99)),
    'all complete (s)': rounded(result.endSeconds),
    'origin sent (images)': rounded(result.originBytes / imageBytes, 2),
    'origin peak (Gbit/s)': rounded(result.peakOriginRate / GBIT, 2),
  };
}

const CHARTS = {
  complete: {
    title: 'Time until 99 % of the machines have the whole image',
    y: 'seconds from the start of the machine',
    value: (result) => percentile(result.completeSeconds, 0.99),
  },
  boot: {
    title: 'Time until 99 % of the machines have booted',
    y: 'seconds from the start of the machine',
    value: (result) => percentile(result.bootSeconds, 0.99),
  },
  sent: {
    title: 'What the origin sends',
    y: 'bytes sent / bytes of the image',
    value: (result) => result.originBytes / imageBytes,
  },
};

/** Simulates all sizes of fleets. Returns the charts by name. */
function sweep() {
  const results = ways.map((way) => FLEETS.map((machines) => ({ machines, result: fleet(way, machines) })));
  const chartOf = ({ title, y, value }) => {
    const series = ways.map((way, index) => ({
      name: NAMES[way],
      points: results[index].map(({ machines, result }) => [machines, value(result)]),
    }));
    const last = series.map(({ name, points }) => `${name} ${rounded(points.at(-1)[1])}`).join(', ');
    const description = `At ${FLEETS.at(-1)} machines, ${y}: ${last}.`;
    const axes = { x: { label: 'machines', isLog: true }, y: { label: y, isLog: true } };
    return lineChart({ title, description, ...axes, series });
  };
  return Object.entries(CHARTS).map(([name, chart]) => [name, chartOf(chart)]);
}

function rates(machines) {
  const series = ways.map((way) => {
    const { bucketSeconds, rates: all } = fleet(way, machines).originRates;
    return { name: NAMES[way], points: all.map((rate, index) => [(index + 0.5) * bucketSeconds, rate / GBIT]) };
  });
  const title = `The rate of the origin, ${machines} machines`;
  const description = `Gbit per second over seconds, for ${series.map(({ name }) => name).join(', ')}.`;
  return lineChart({ title, description, x: { label: 'seconds' }, y: { label: 'Gbit/s' }, series });
}

const machines = number(given.machines, 'machines', 1);
if (given.plot !== undefined) {
  for (const [name, svg] of sweep()) writeFileSync(given.plot.replace(/(\.svg)?$/, `-${name}.svg`), svg);
} else if (given['plot-rate'] !== undefined) {
  writeFileSync(given['plot-rate'], rates(machines));
} else {
  const rows = ways.map((way) => rowOf(way, fleet(way, machines)));
  if (given.json) console.log(JSON.stringify(rows));
  else {
    const list = rows.map(({ way, ...row }) => [way, row]);
    console.table(Object.fromEntries(list));
  }
}
