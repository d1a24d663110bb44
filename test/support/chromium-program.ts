/** Debian's Chromium, and how it is started for tests: as root, without a screen, asking nobody for anything. */

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
