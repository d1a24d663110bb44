import { existsSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { playwright } from '@vitest/browser-playwright';
import type { TestProjectConfiguration, ViteUserConfig } from 'vitest/config';
import { chromiumArguments, chromiumPath } from './test/support/chromium-program.ts';

/** Chromium's profile: on disk, since in a private context OPFS lies in memory and refuses large files without an error. */
const profile = join(tmpdir(), `copyondemand-chromium-${process.pid}`);
process.once('exit', () => rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));

const browser: TestProjectConfiguration = {
  optimizeDeps: { exclude: ['roaring-wasm'], include: ['fast-check'] },
  test: {
    name: 'browser',
    include: ['test/browser/**/*.test.ts'],
    globalSetup: ['test/browser/setup.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // One profile, so one page at a time.
    fileParallelism: false,
    browser: {
      enabled: true,
      headless: true,
      screenshotFailures: false,
      api: { host: '127.0.0.1' },
      provider: playwright({
        persistentContext: profile,
        launchOptions: { executablePath: chromiumPath, args: [...chromiumArguments] },
      }),
      instances: [{ browser: 'chromium' }],
    },
  },
};

const config: ViteUserConfig = {
  test: {
    environment: 'node',
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/system/**', 'test/browser/**'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        // Foreign programs, whole processes, the packed package: slow, and no matter of Node's version.
        extends: true,
        test: { name: 'system', include: ['test/system/**/*.test.ts'], testTimeout: 300_000, hookTimeout: 300_000 },
      },
      // `npm test` says that it is skipped, and in CI the tests under test/system fail for it.
      ...(existsSync(chromiumPath) ? [browser] : []),
    ],
  },
};

export default config;
