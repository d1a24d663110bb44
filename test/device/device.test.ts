import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Volume } from 'memfs';
import { afterAll } from 'vitest';
import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { deviceSuite } from './device-suite.ts';

deviceSuite('memory', () => memfsFileSystem(new Volume()));

const directory = mkdtempSync(join(tmpdir(), 'cod-device-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

deviceSuite("Node's files", () => nodeFileSystem(mkdtempSync(join(directory, 'd-'))), { numRuns: 40 });
