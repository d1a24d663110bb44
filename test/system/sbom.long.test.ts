/** `npm run sbom`: the bill of materials has exactly what a user of the package runs. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const root = new URL('../../', import.meta.url);

test('names the dependencies and the packages in the command', () => {
  const bill = JSON.parse(
    execFileSync(process.execPath, ['scripts/sbom.mjs'], { cwd: root, encoding: 'utf8', stdio: 'pipe' }),
  ) as {
    metadata: { component: { name: string } };
    components: { name: string }[];
    dependencies: { ref: string; dependsOn: string[] }[];
  };
  const { name, dependencies } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as {
    name: string;
    dependencies: Record<string, string>;
  };
  expect(bill.metadata.component.name).toBe(name);
  const names = bill.components.map((component) => component.name);
  expect(names).toEqual(expect.arrayContaining([...Object.keys(dependencies), 'commander', 'cli-progress']));
  expect(names).not.toContain('vitest');
  expect(bill.dependencies.some(({ ref }) => ref.startsWith(`${name}@`))).toBe(true);
});
