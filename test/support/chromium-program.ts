/** Debian's Chromium and its arguments for tests: as root, headless, without prompts. */

export const chromiumPath: string = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium';

export const chromiumArguments: readonly string[] = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
