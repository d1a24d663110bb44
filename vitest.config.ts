import { existsSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { playwright } from '@vitest/browser-playwright';
import type { TestProjectConfiguration, ViteUserConfig } from 'vitest/config';
import { BaseSequencer, type BrowserProviderOption, type TestSpecification } from 'vitest/node';
import { chromiumArguments, chromiumPath } from './test/support/chromium-program.ts';
import { firefoxPath } from './test/support/firefox.ts';
import { firefoxProvider } from './test/support/firefox-provider.ts';
import { otherPackages } from './test/support/other-packages.ts';
import { plantedPatches } from './test/support/planted-patches.ts';

/** One more than there are processors: a system test waits for other processes during half of its time. */
const maxWorkers: number = availableParallelism() + 1;

/** Returns a profile on disk. In a private context, OPFS is in memory and refuses large files without an error. */
function profileOf(browser: string): string {
  const profile = join(tmpdir(), `copyondemand-${browser}-${process.pid}`);
  // Once, although vitest evaluates this file for each project.
  const isKept = `COD_PROFILE_${browser}`;
  if (process.env[isKept] !== profile) {
    process.env[isKept] = profile;
    process.once('exit', () => rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
  }
  return profile;
}

/**
 * Unit tests that need a process of their own: one fills the heap of roaring-wasm, one replaces a module, and one takes
 * all page buffers, some of which an abandoned device of another test may hold.
 */
const ALONE: readonly string[] = [
  'test/log/no-memory.test.ts',
  'test/nbd/connection.test.ts',
  'test/platform/pages.test.ts',
];

/** The tests that run in a page. */
const inBrowser = (
  name: string,
  browser: 'chromium' | 'firefox',
  provider: BrowserProviderOption,
): TestProjectConfiguration => ({
  optimizeDeps: { exclude: ['roaring-wasm'], include: ['fast-check'] },
  test: {
    name,
    include: ['test/browser/**/*.test.ts'],
    globalSetup: ['test/browser/setup.ts'],
    testTimeout: 300_000,
    hookTimeout: 300_000,
    maxWorkers,
    browser: {
      enabled: true,
      headless: true,
      // One profile, so one page at a time.
      fileParallelism: false,
      screenshotFailures: false,
      api: { host: '127.0.0.1' },
      provider,
      instances: [{ browser }],
    },
  },
});

const chromium = inBrowser(
  'browser',
  'chromium',
  playwright({
    persistentContext: profileOf('chromium'),
    launchOptions: { executablePath: chromiumPath, args: [...chromiumArguments] },
  }),
);
const firefox = inBrowser('firefox', 'firefox', firefoxProvider(profileOf('firefox')));

/**
 * The files that take longest, of `npm run test:long` and of `npm test`, in the order in which they start. First come
 * those that wait for most of their time. By itself vitest starts the largest files first, and some of these have ten
 * lines.
 */
const SLOWEST: readonly string[] = [
  'system/source-away.long',
  'soak/soak.long',
  'log/storage-engine.long',
  'crash/campaign.long',
  'system/page.long',
  'system/browser.long',
  'system/nbd-clients.long',
  'system/cli-config.long',
  'system/firefox-page.long',
  'system/firefox.long',
  'crash/planted-bugs.long',
  'system/day.long',
  'system/cli-refusals.long',
  'system/cli-inspect.long',
  'system/linux.long',
  'system/cloud-image.long',
  'system/verify.long',
  'system/faults-source.long',
  'system/package',
  'browser/page-device',
  'crash/device.crash',
  'device/cold-read',
  'log/foreign-files',
  'log/repair',
  'log/damage',
].map((name) => `/test/${name}.test.ts`);

/**
 * Starts the slowest files first, so that no processor idles while one of them ends. The files of a project stay
 * together: only then does a process run the next file too.
 */
class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ project, moduleId }: TestSpecification): number => {
      const place = SLOWEST.findIndex((name) => moduleId.endsWith(name));
      return (project.name === 'unit' ? 1000 : 0) + (place < 0 ? SLOWEST.length : place);
    };
    return (await super.sort(files)).sort((one, other) => rank(one) - rank(other));
  }
}

const config: ViteUserConfig = {
  // For test/system/dependency-versions.long.test.ts and test/crash/planted-bugs.long.test.ts.
  plugins: [...otherPackages(), ...plantedPatches()],
  test: {
    environment: 'node',
    maxWorkers,
    setupFiles: ['test/support/byte-equality.ts'],
    sequence: { sequencer: SlowestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [
            'test/system/**',
            'test/browser/**',
            'test/fleet/**',
            'test/power/**',
            'test/**/*.long.test.ts',
            ...ALONE,
          ],
          // A process for each file would take a second of a processor per file.
          isolate: false,
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
      {
        extends: true,
        test: { name: 'unit-alone', include: [...ALONE], testTimeout: 300_000, hookTimeout: 300_000 },
      },
      {
        // Foreign programs, whole processes, the packed package: slow, and independent of Node's version.
        extends: true,
        test: {
          name: 'system',
          // A process for each file would take a second of a processor per file.
          isolate: false,
          include: ['test/system/**/*.test.ts'],
          exclude: ['test/**/*.long.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
      {
        // `npm run test:long`: what takes minutes, and more rounds of the randomized tests.
        extends: true,
        test: {
          name: 'long',
          include: [
            'test/**/*.long.test.ts',
            'test/power/**/*.test.ts',
            'test/device/concurrency.test.ts',
            'test/device/linearizability.test.ts',
            'test/device/snapshot.test.ts',
            'test/fs/owners.test.ts',
            'test/fuzz/fuzz.test.ts',
            'test/log/damage.test.ts',
            'test/log/foreign-files.test.ts',
            'test/log/journal.test.ts',
            'test/log/log-file.test.ts',
            'test/log/repair.test.ts',
            'test/nbd/linearizability.test.ts',
            'test/sources/qcow2/fuzz.test.ts',
            'test/sources/qcow2/images.test.ts',
            'test/system/cli-copy.test.ts',
            'test/system/nbd-linearizability.test.ts',
            'test/testing/linearizability.test.ts',
          ],
          env: { COD_TEST_LONG: '1' },
          testTimeout: 1_800_000,
          hookTimeout: 900_000,
        },
      },
      {
        // `npm run test:fleet`: thirty processes at a time, and a Ceph for each file.
        extends: true,
        test: {
          name: 'fleet',
          include: ['test/fleet/**/*.test.ts', 'test/system/ceph.long.test.ts'],
          fileParallelism: false,
          testTimeout: 900_000,
          hookTimeout: 900_000,
        },
      },
      {
        // `npm run test:power`: many power cuts, one file system after the other.
        extends: true,
        test: {
          name: 'power',
          include: ['test/power/**/*.test.ts'],
          testTimeout: 7_200_000,
          hookTimeout: 300_000,
        },
      },
      // `npm test` says that it is skipped, and in CI the tests under test/system fail for it.
      ...(existsSync(chromiumPath) ? [chromium] : []),
      ...(existsSync(firefoxPath) ? [firefox] : []),
    ],
  },
};

export default config;
