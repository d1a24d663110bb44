/** The demo with redirected output. */

import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

function leftovers(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith('copyondemand-demo-'));
}

test('the demo prints every step without control sequences, verifies the copy and removes its files', async () => {
  const before = leftovers();
  const { exitCode, stdout, stderr } = await runCommand(['demo'], { cwd: temporaryDirectory() });
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the output must not contain control characters
  expect(stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f]/);
  const story = [
    'A sample image',
    'uses it at once',
    'kill -9',
    'need not be fetched again',
    'as written',
    '100 %',
    'the same',
    'npm start -- copy',
  ];
  let at = 0;
  for (const part of story) {
    const found = stdout.indexOf(part, at);
    expect(found, `${part} comes after the steps before it`).toBeGreaterThanOrEqual(at);
    at = found;
  }
  expect(leftovers()).toEqual(before);
});

test('SIGINT ends the demo with 130, and the demo removes its files', async () => {
  const before = leftovers();
  const running = startCommand(['demo'], {
    onLine: (line) => {
      if (line.includes('flushes')) running.child.kill('SIGINT');
    },
  });
  expect((await running.result).exitCode).toBe(130);
  expect(leftovers()).toEqual(before);
});
