/** The device over OPFS in Chromium: the same tests as over memory and over Node's files. */

import { afterEach } from 'vitest';
import { deviceSuite } from '../device/device-suite.ts';
import { type RemoteFiles, remoteFiles } from './remote-files.ts';

const running: RemoteFiles[] = [];

afterEach(() => {
  for (const files of running.splice(0)) files.terminate();
});

deviceSuite(
  'OPFS',
  async () => {
    const files = await remoteFiles();
    running.push(files);
    return files;
  },
  { numRuns: 30 },
);
