/** Tests of the shipped package in a browser: interrupted copies, and copies that another program resumes. */

import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { type JsonEvent, runCommand, runUntil } from '../cli/command.ts';
import { ByteHistory, type HistoricWrite } from '../support/byte-history.ts';
import { expectBytes } from '../support/bytes.ts';
import type { BrowserBench, TestBrowser, TestPage } from './browser-bench.ts';
import type { Step } from './browser-page.ts';

const BLOCK = 4096;

/** How many rounds the tests of {@link interruptions} run. */
export interface Interruptions {
  /** How many workers are terminated: with one page, and with two pages on one disk. Each is a multiple of 10. */
  readonly terminations: number;
  readonly terminationsShared: number;
  /** How many browsers are killed. */
  readonly kills: number;
}

/** Tests that terminate workers and kill browsers. */
export function interruptions(
  bench: BrowserBench<TestBrowser>,
  { terminations, terminationsShared, kills }: Interruptions,
): void {
  const seed = Number(process.env['COD_CRASH_SEED'] ?? 1);

  test(`loses no acknowledged write when ${terminations} workers are terminated`, async () => {
    const { url } = bench.makeImage('terminated', 30 * BLOCK + 700);
    await bench.act('terminate', { url, rounds: terminations, seed, guest: false });
  });

  test('loses no acknowledged write when two pages share a disk and workers of either are terminated', async () => {
    const { url } = bench.makeImage('terminated-guest', 30 * BLOCK + 700);
    await bench.act('terminate', { url, rounds: terminationsShared, seed, guest: true });
  });

  test(`keeps every acknowledged write when ${kills} browsers are killed`, async () => {
    const { bytes, url } = bench.makeImage('killed-image', 30 * BLOCK + 700, 2);
    const random = seededRandom(seed);
    let history = new ByteHistory(bytes);
    let flushed = 0;
    let unflushed = 0;
    for (let round = 0; ; round++) {
      const found = new Uint8Array(Buffer.from(await bench.act('begin', { url }), 'base64'));
      expect(history.violation(found, 'acknowledged'), `seed ${seed}, round ${round}`).toBeUndefined();
      if (round === kills) break;

      history = new ByteHistory(found);
      const writes: HistoricWrite[] = [];
      const flushes: (() => void)[] = [];
      let untilKill = 20 + random.below(100);
      let soon!: () => void;
      const heardEnough = new Promise<void>((resolve) => (soon = resolve));
      await bench.page.exposeFunction('tell', (what: Parameters<NonNullable<typeof globalThis.tell>>[0]) => {
        if ('begin' in what) {
          const { id, offset, length, seed: bytesSeed } = what.begin;
          writes[id] = history.begin(offset, seededRandom(bytesSeed).fill(new Uint8Array(length)));
        } else if ('acknowledged' in what) history.acknowledge(writes[what.acknowledged]!);
        else if ('flushing' in what) flushes[what.flushing] = history.beginFlush();
        else {
          flushes[what.flushed]!();
          flushed++;
        }
        if (--untilKill === 0) soon();
      });
      const working = bench.act('work', { seed: seed + round });
      working.catch(() => undefined);
      await Promise.race([heardEnough, working]);
      await new Promise((resolve) => setTimeout(resolve, random.below(30)));
      await bench.browser.kill();
      await bench.restart();
      unflushed += writes.filter(({ acknowledged, durable }) => acknowledged && !durable).length;
    }
    expect(flushed).toBeGreaterThan(kills);
    expect(unflushed).toBeGreaterThan(kills);
  });

  const endings: readonly [name: string, end: () => Promise<void>][] = [
    [
      'the last tab is closed',
      async () => {
        // A blank tab keeps the browser alive, but nothing of this origin.
        const blank = await bench.browser.newPage();
        await bench.page.close();
        bench.page = await bench.prepare(blank);
      },
    ],
    [
      'the browser is killed',
      async () => {
        await bench.browser.kill();
        await bench.restart();
      },
    ],
  ];
  test.each(endings)(
    'keeps every acknowledged, unflushed write when %s with many writes in flight',
    async (name, end) => {
      const target = name.replaceAll(' ', '-');
      const { bytes, url } = bench.makeImage(`${target}-image`, 100 * BLOCK + 700, 3);
      const random = seededRandom(seed);
      let unfinished = 0;
      for (let round = 0; round < 4; round++) {
        // A new disk that was never read: its blocks are not synced, so writes to them need records.
        const disk = { url, target: `${target}-${round}` };
        await bench.act('openQuiet', disk);
        const history = new ByteHistory(bytes);
        const writes: HistoricWrite[] = [];
        let untilEnd = 40 + random.below(100);
        let soon!: () => void;
        const heardEnough = new Promise<void>((resolve) => (soon = resolve));
        await bench.page.exposeFunction('tell', (what: { begin: Step } | { acknowledged: number }) => {
          if ('begin' in what) {
            const { id, offset, length, seed: bytesSeed } = what.begin;
            writes[id] = history.begin(offset, seededRandom(bytesSeed).fill(new Uint8Array(length)));
            return;
          }
          history.acknowledge(writes[what.acknowledged]!);
          if (--untilEnd === 0) soon();
        });
        const working = bench.act('writeMany', { seed: seed + round });
        working.catch(() => undefined);
        await Promise.race([heardEnough, working]);
        await end();
        expect(writes.filter(({ acknowledged }) => acknowledged).length).toBeGreaterThanOrEqual(40);
        unfinished += writes.filter(({ endedAt }) => endedAt === undefined).length;
        await bench.act('openQuiet', disk);
        const found = new Uint8Array(Buffer.from(await bench.act('readAndClose', {}), 'base64'));
        expect(history.violation(found, 'acknowledged'), `seed ${seed}, round ${round}`).toBeUndefined();
      }
      expect(unfinished).toBeGreaterThan(0);
    },
  );
}

/** Tests with several tabs, and with copies that move between the browser and Node. */
export function copies(bench: BrowserBench<TestBrowser>): void {
  test('hands the device with all acknowledged writes to the next tab when a tab is closed', async () => {
    const { bytes, url } = bench.makeImage('tabs', 30 * BLOCK, 3);
    const second = await bench.prepare(await bench.browser.newPage());
    const image = JSON.stringify(url);
    const open = `(await import('/dist/browser.js')).openDevice({
      source: ${image}, target: 'tabs-disk', hydrate: false })`;
    const run = <T>(where: TestPage, code: string): Promise<T> =>
      where.evaluate(`(async () => { ${code} })()`) as Promise<T>;
    for (const [where, role] of [
      [bench.page, 'owner'],
      [second, 'guest'],
    ] as const) {
      expect(await run(where, `globalThis.device = await ${open}; return device.role;`)).toBe(role);
    }
    await run(bench.page, 'await device.write(new Uint8Array(5000).fill(7), 100);');
    await run(second, 'await device.write(new Uint8Array(5000).fill(8), 50_000);');
    const first = bench.page;
    bench.page = await bench.prepare(await bench.browser.newPage());
    await first.close();
    const found = new Uint8Array(
      await run<number[]>(
        second,
        'const all = new Uint8Array(device.size); await device.read(all, 0); return [...all];',
      ),
    );
    bytes.fill(7, 100, 5100);
    bytes.fill(8, 50_000, 55_000);
    expectBytes(found, bytes);
    expect(await run(second, 'return device.role;')).toBe('owner');
    await run(second, 'await device.close();');
    await second.close();
  });

  const writes = [
    { offset: 10, length: 5000, seed: 11 },
    { offset: 200 * BLOCK - 100, length: 3 * BLOCK, seed: 12 },
    { offset: 500 * BLOCK, length: 2 * BLOCK, seed: 13 },
  ];
  const expected = (bytes: Uint8Array): Uint8Array => {
    const all = bytes.slice();
    for (const { offset, length, seed: bytesSeed } of writes)
      all.set(seededRandom(bytesSeed).fill(new Uint8Array(length)), offset);
    return all;
  };

  test('the command resumes a copy that the browser started', async () => {
    const { bytes, url } = bench.makeImage('outward-image', 520 * BLOCK + 1, 4);
    await bench.act('visit', { url, target: 'outward', hydrate: true, writes, untilBlocks: 50 });
    const names = await bench.act('upload', { target: 'outward' });
    expect(names).toContain('outward.bak');
    const before = await runCommand(['inspect', join(bench.files, 'outward'), '--json']);
    const { syncedBlocks, totalBlocks } = JSON.parse(before.stdout) as { syncedBlocks: number; totalBlocks: number };
    expect(syncedBlocks).toBeGreaterThanOrEqual(50);
    expect(syncedBlocks).toBeLessThan(totalBlocks);
    expect(await runCommand(['copy', url, join(bench.files, 'outward'), '--quiet'])).toMatchObject({
      exitCode: 0,
      stderr: '',
    });
    expectBytes(readFileSync(join(bench.files, 'outward')), expected(bytes));
    expect(readdirSync(bench.files).filter((name) => name.startsWith('outward.'))).toEqual([]);
  });

  test('the browser resumes a copy that the command started', async () => {
    const { bytes, url } = bench.makeImage('inward-image', 520 * BLOCK + 1, 5);
    const target = join(bench.files, 'inward');
    const midway = (event: JsonEvent): boolean =>
      event.event === 'progress' && event['phase'] === 'copying' && Number(event['bytes']) > 0;
    expect((await runUntil(['copy', url, target, '--rate', '1M'], 'SIGINT', midway)).exitCode).toBe(130);
    const before = await runCommand(['inspect', target, '--json']);
    expect((JSON.parse(before.stdout) as { syncedBlocks: number }).syncedBlocks).toBeGreaterThan(0);
    const names = readdirSync(bench.files).filter((name) => name === 'inward' || /^inward\.(bak|wil)/.test(name));
    expect(names.length).toBeGreaterThan(2);
    await bench.act('download', { names });
    await bench.act('visit', { url, target: 'inward', hydrate: true, writes, finish: true });
    for (const name of names) rmSync(join(bench.files, name));
    expect(await bench.act('upload', { target: 'inward' })).toEqual(['inward']);
    expectBytes(readFileSync(target), expected(bytes));
  });

  test('the browser and Node write equal checkpoints for equal states', async () => {
    const { url } = bench.makeImage('equal-image', 520 * BLOCK + 1, 6);
    const target = join(bench.files, 'equal');
    const visit = async (made: typeof writes): Promise<void> => {
      const source = await httpSource(url);
      const device = await openDevice({ source, fileSystem: nodeFileSystem(), target, hydrate: false });
      for (const { offset, length, seed: bytesSeed } of made)
        await device.write(seededRandom(bytesSeed).fill(new Uint8Array(length)), offset);
      await device.close();
      await source.close();
    };
    await visit(writes.slice(0, 1));
    const names = readdirSync(bench.files).filter((name) => name === 'equal' || /^equal\.(bak|wil)/.test(name));
    await bench.act('download', { names });
    await visit(writes.slice(1));
    const checkpoints = (): Record<string, string> =>
      Object.fromEntries(
        ['equal.bak', 'equal.bak.1'].map((name) => [name, readFileSync(join(bench.files, name)).toString('hex')]),
      );
    const underNode = checkpoints();
    await bench.act('visit', { url, target: 'equal', hydrate: false, writes: writes.slice(1) });
    for (const name of names) rmSync(join(bench.files, name));
    await bench.act('upload', { target: 'equal' });
    expect(checkpoints()).toEqual(underNode);
  });
}

/** Tests of a browser that removes the data of the site while a copy is open. */
export function lostSiteData(bench: BrowserBench<TestBrowser>): void {
  test.each([
    ['rest', false],
    ['are used', true],
  ])(
    'tells pages that %s within seconds when the data of the site is removed, and opens a new copy',
    async (_, busy) => {
      const target = `lost-${busy}`;
      const { bytes, url } = bench.makeImage(`${target}-image`, 30 * BLOCK + 1, 7);
      const { told, refusal } = await bench.act('loseSiteData', { url, target, busy });
      for (const { states, codes, last } of told) {
        expect(states.at(-1)).toBe('poisoned');
        expect(codes).toEqual(Array.from({ length: 4 }, () => 'COD_POISONED'));
        expect(last).toBe('closed');
      }
      if (refusal !== undefined) expect(refusal).toContain('reload the page');
      // A busy Chromium can still be removing when the page is loaded again, and then refuses once more.
      for (let loads = 1; ; loads++) {
        await bench.prepare(bench.page);
        const again = await bench.act('openQuiet', { url, target }).then(
          () => undefined,
          (error: Error) => error,
        );
        if (again === undefined) break;
        if (loads === 10 || !again.message.includes('reload the page')) throw again;
      }
      expectBytes(new Uint8Array(Buffer.from(await bench.act('readAndClose', {}), 'base64')), bytes);
    },
  );
}

/** A test with offsets beyond 2 GiB. */
export function largeImage(bench: BrowserBench<TestBrowser>): void {
  test('copies a sparse image of 3 GiB completely without allocating its holes', async () => {
    const path = join(bench.files, 'large-image');
    const fd = openSync(path, 'w');
    ftruncateSync(fd, 3 * 2 ** 30 + 5);
    const chunk = new Uint8Array(2 ** 20);
    // At both ends of the image, and on both sides of 2 GiB.
    for (const [index, offset] of [
      0,
      2 ** 30 + 77,
      2 ** 31 - 2 ** 19,
      2 ** 31 + 2 ** 29,
      3 * 2 ** 30 + 5 - 2 ** 20,
    ].entries()) {
      writeSync(fd, seededRandom(20 + index).fill(chunk), 0, chunk.length, offset);
    }
    closeSync(fd);
    await bench.act('visit', {
      url: `${bench.site.url}/files/large-image`,
      target: 'large',
      hydrate: true,
      writes: [],
      finish: true,
    });
    await bench.browser.close();
    try {
      const copy = largeFileOf(bench.profile, 3 * 2 ** 30 + 5);
      execFileSync('cmp', [path, copy]);
      // Some zeros are allocated: a fetched piece that ends in a hole is written whole.
      expect(statSync(copy).blocks * 512).toBeLessThan(2 ** 30 + 2 ** 29);
    } finally {
      rmSync(path);
      await bench.restart();
    }
    await bench.page.evaluate("navigator.storage.getDirectory().then((root) => root.removeEntry('large'))");
  });
}

/** OPFS stores files under numbers, so this finds the file by its size. */
function largeFileOf(profile: string, size: number): string {
  const found = readdirSync(profile, { recursive: true, encoding: 'utf8' })
    .map((name) => join(profile, name))
    .find((path) => statSync(path, { throwIfNoEntry: false })?.size === size);
  if (found === undefined) throw new Error(`no file of ${size} bytes in the profile`);
  return found;
}
