import { expect, test } from 'vitest';
import { ACTIONS } from '../../src/cli/actions.ts';
import { definitions } from '../../src/cli/definitions/program.ts';

const { commands } = definitions('0.0.0');

test('each command that is defined has an action', () => {
  expect(Object.keys(ACTIONS).sort()).toEqual(commands.map((command) => command.name()).sort());
});
