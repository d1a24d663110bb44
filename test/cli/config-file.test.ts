/** The file of `serve --config`. */

import { describe, expect, test } from 'vitest';
import { JsonObject, parseCommentedJson } from '../../src/cli/commented-json.ts';
import { DISK_OPTIONS, type DiskConfig, PROCESS_OPTIONS, parseConfig } from '../../src/cli/config-file.ts';
import { definitions } from '../../src/cli/definitions/program.ts';

const serve = definitions('0.0.0').commands.find((command) => command.name() === 'serve')!;

/** Returns the value as `JSON.parse` would. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof JsonObject)) return value;
  return Object.fromEntries([...value.members].map(([key, member]) => [key, plain(member.value)]));
}

function disksOf(...disks: object[]): readonly DiskConfig[] {
  return parseConfig(JSON.stringify({ disks }), 'file').disks;
}

describe('JSON with comments', () => {
  test('is JSON where it has no comments', () => {
    const value = { a: [1, -0.5, 1e3, 'x\n"\u00e9//', true, false, null], b: {}, c: [], 'd/*': { e: '*/' } };
    for (const text of [JSON.stringify(value), JSON.stringify(value, null, 2), `\uFEFF${JSON.stringify(value)}\n`])
      expect(plain(parseCommentedJson(text, 'file'))).toEqual(value);
  });

  test('has comments between tokens, and none within strings', () => {
    const text = '// first\n{ /* a\n b */ "a": "// no /* comment */", // last\n"b": [1 /**/, 2] } // end';
    expect(plain(parseCommentedJson(text, 'file'))).toEqual({ a: '// no /* comment */', b: [1, 2] });
  });

  test.each([
    ['', 'file:1:1: a value is expected here'],
    ['{', 'file:1:2: a key in quotes is expected here'],
    ['{"a" 1}', 'file:1:6: a colon is expected here'],
    ['{"a": 1,\n "b": }', 'file:2:7: a value is expected here'],
    ['{"a": 1,}', 'file:1:9: a key in quotes is expected here'],
    ['[1 2]', 'file:1:4: a comma or ] is expected here'],
    ['{}\n{}', 'file:2:1: the end is expected here'],
    ['["a\nb"]', 'file:1:2: a value is expected here'],
    [String.raw`["\x"]`, 'file:1:2: valid escapes in the string is expected here'],
    ['[yes]', 'file:1:2: a value is expected here'],
    ['[01]', 'file:1:3: a comma or ] is expected here'],
    ['/* a', 'file:1:1: a value is expected here'],
    ['// true @\n\n  @', 'file:3:3: a value is expected here'],
    ['{"a": 1,\n  "a": 2}', 'file:2:3: the key "a" is there twice'],
  ])('%j is malformed', (text, message) => {
    expect(() => parseCommentedJson(text, 'file')).toThrow(message);
  });

  test('is nested at most 100 deep', () => {
    expect(() => parseCommentedJson(`${'['.repeat(100)}${']'.repeat(100)}`, 'file')).not.toThrow();
    for (const text of ['['.repeat(101), '{"a":'.repeat(20_000)]) {
      const column = text.startsWith('[') ? 101 : 501;
      const message = `file:1:${column}: more than 100 objects and lists are in each other`;
      expect(() => parseCommentedJson(text, 'file')).toThrow(message);
    }
  });
});

test('each option of serve is one of a disk, of the process, or of the command line', () => {
  const ofCommand = ['config', 'export', 'json', 'log', 'metrics', 'quiet', 'verbose'];
  const names = serve.options.map(({ long }) => long!.slice(2));
  expect([...DISK_OPTIONS, ...PROCESS_OPTIONS, ...ofCommand].sort()).toEqual(names.sort());
});

describe('a disk', () => {
  test('has the options of serve by their names in camel case', () => {
    const [disk] = disksOf({
      ...{ name: 'a', source: 'https://example.com/a', target: 'a.raw', rate: '1M', rateGroup: 'wan', order: 'o' },
      ...{ header: ['A: 1', 'B: 2'], retries: 3, timeout: '60', sameSource: true, format: 'raw', backing: 'allow' },
    });
    expect(disk).toMatchObject({ name: 'a', target: 'a.raw', uri: { kind: 'http' } });
    expect(disk!.flags).toEqual({
      ...{ export: 'a', hydrate: true, rate: 2 ** 20, rateGroup: 'wan', order: 'o', header: ['A: 1', 'B: 2'] },
      ...{ retries: 3, timeout: 60, sameSource: true, format: 'raw', backing: ['allow'] },
    });
  });

  test('has the defaults that it can have, and its own options count more', () => {
    const defaults = { rate: '1M', timeout: 60, user: 'a:b', sameSource: true };
    const { disks } = parseConfig(
      JSON.stringify({
        defaults,
        disks: [
          { name: 'http', source: 'http://example.com/', target: '1', rate: 'unlimited' },
          { name: 'nbd', source: 'nbd://example.com/', target: '2', timeout: 5 },
          { name: 'path', source: 'a', target: '3', readOnly: true },
        ],
      }),
      'file',
    );
    expect(disks.map(({ flags: { export: _, hydrate: _1, ...flags } }) => flags)).toEqual([
      { timeout: 60, user: 'a:b', sameSource: true },
      { rate: 2 ** 20, timeout: 5, sameSource: true },
      { sameSource: true, readOnly: true },
    ]);
  });

  test('is the same while only its rates change', () => {
    const disk = { name: 'a', source: 'a', target: 'b' };
    const [before] = disksOf(disk);
    for (const change of [{ rate: '1M' }, { rateFile: 'f' }, { rate: 'unlimited' }]) {
      const [after] = disksOf({ ...disk, ...change });
      expect(after!.identity).toBe(before!.identity);
      expect(after!.rates).not.toBe(before!.rates);
    }
    for (const change of [{ source: 'c' }, { target: 'c' }, { order: 'o' }, { readOnly: true }, { hydrate: false }]) {
      const [after] = disksOf({ ...disk, ...change });
      expect(after!.identity).not.toBe(before!.identity);
      expect(after!.rates).toBe(before!.rates);
    }
  });
});

const A = '{"name": "a", "target": "a"}';
test.each([
  ['[]', 'file:1: the file: an object is expected here'],
  ['{}', 'file:1: the file: it needs "disks", a list of objects'],
  ['{"disks": {}}', 'file:1: the file: it needs "disks", a list of objects'],
  ['{\n"disk": []}', 'file:2: the file, "disk": there is no such key here'],
  ['{"disks": [],\n"rate": "1M"}', 'file:2: the file, "rate": there is no such key here'],
  ['{"disks": [],\n"port": "x"}', 'file:2: the file, "port": Use an integer from 0 to 65535'],
  ['{"disks": [],\n"socket": 1}', 'file:2: the file, "socket": a string is expected here'],
  ['{"disks": [],\n"socket": "s", "port": 1}', 'file:1: the file: use either --socket, or --host and --port'],
  ['{"disks": [], "defaults": []}', 'file:1: defaults: an object is expected here'],
  ['{"disks": [],\n"defaults": {"target": "a"}}', 'file:2: defaults, "target": there is no such key here'],
  ['{"disks": [],\n"defaults": {"insecure": 1}}', 'file:2: defaults, "insecure": true or false is expected here'],
  ['{"disks": [\n1]}', 'file:1: disks[0]: an object is expected here'],
  ['{"disks": [\n{}]}', 'file:2: disks[0]: it needs "name", the name of its export'],
  ['{"disks": [{"name":\n1}]}', 'file:1: disks[0], "name": a string is expected here'],
  ['{"disks": [\n{"name": "a"}]}', 'file:2: disks[0] "a": it needs "target", a path'],
  ['{"disks": [\n{"name": "a", "target": ""}]}', 'file:2: disks[0] "a": TARGET is empty'],
  ['{"disks": [\n{"name": "a\\u0000", "target": "a"}]}', 'file:2: disks[0] "a\\u0000": --export: the name contains'],
  [
    '{"disks": [{"name": "a", "target": "a",\n"rate": "fast"}]}',
    'file:2: disks[0] "a", "rate": Use for example 500k, 20M',
  ],
  ['{"disks": [{"name": "a", "target": "a",\n"socket": "s"}]}', 'file:2: disks[0] "a", "socket": there is no such key'],
  ['{"disks": [{"name": "a", "target": "a",\n"header": [1]}]}', 'file:2: disks[0] "a", "header": a string or a list'],
  ['{"disks": [{"name": "a", "target": "a",\n"format": "vmdk"}]}', 'file:2: disks[0] "a", "format": Allowed choices'],
  ['{"disks": [{"name": "a", "target": "a", "source": "ftp://x"}]}', 'file:1: disks[0] "a": ftp:// sources are not'],
  [
    '{"disks": [{"name": "a", "target": "a", "source": "b", "user": "a:b"}]}',
    'disks[0] "a": --user needs an HTTP source',
  ],
  ['{"disks": [{"name": "a", "target": "a", "readOnly": true, "rate": 1}]}', 'disks[0] "a": --rate, --rate-file'],
  [`{"disks": [${A},\n${A}]}`, 'file:2: disks[1] "a": it has the name of disks[0], "a"'],
  [`{"disks": [${A},\n{"name": "b", "target": "./a"}]}`, 'file:2: disks[1] "b": it has the target of disks[0]'],
  [
    `{"disks": [${A},\n{"name": "b", "target": "b", "metadata": "a"}]}`,
    'disks[1] "b": it has the metadata of disks[0]',
  ],
])('%s is refused', (text, message) => {
  expect(() => parseConfig(text, 'file')).toThrow(message);
});
