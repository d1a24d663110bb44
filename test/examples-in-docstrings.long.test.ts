/**
 * The examples in the docstrings of the public entries: all of them compile, and those for Node run and print what they
 * say. test/browser/docstring-examples.test.ts runs those for pages and workers.
 */

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tinyImage } from './sources/qcow2/tiny-image.ts';
import { type Example, examplesIn } from './support/docstrings.ts';
import { TestNbdServer } from './support/nbd-server.ts';
import { bundleUser, ENTRIES } from './support/own-package.ts';
import { serveFile } from './support/range-server.ts';

const root = join(import.meta.dirname, '..');
const image = new Uint8Array(2 ** 20 + 512).map((_, index) => index >> 9);

const { options } = ts.parseJsonConfigFileContent(
  ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile).config,
  ts.sys,
  root,
);

/** Checks these files, and the virtual ones, as a user's project with our compiler options does. */
function compile(files: readonly string[], virtual: ReadonlyMap<string, string> = new Map()): ts.Program {
  const settings: ts.CompilerOptions = {
    ...options,
    // An example need not use what it makes.
    noUnusedLocals: false,
    paths: Object.fromEntries([...ENTRIES].map(([name, path]) => [name, [path]])),
  };
  const host = ts.createCompilerHost(settings);
  const { readFile: read, fileExists } = host;
  host.readFile = (path) => virtual.get(path) ?? read(path);
  host.fileExists = (path) => virtual.has(path) || fileExists(path);
  return ts.createProgram({ rootNames: [...files, ...virtual.keys()], options: settings, host });
}

/** The examples of an entry by export. The entry's own, in its first comment, are those of `''`. */
function examplesOf(entry: string, program: ts.Program): Map<string, Example[]> {
  const checker = program.getTypeChecker();
  const file = program.getSourceFile(ENTRIES.get(entry)!)!;
  const found = new Map<string, Example[]>();
  const first = /^\/\*\*[\s\S]*?\*\//.exec(file.text)?.[0] ?? '';
  if (first.includes('@packageDocumentation')) found.set('', examplesIn(first));
  const module = checker.getSymbolAtLocation(file);
  for (const exported of module === undefined ? [] : checker.getExportsOfModule(module)) {
    const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    const comments = new Set<string>();
    const collect = (node: ts.Node): void => {
      for (const comment of ts.getJSDocCommentsAndTags(node)) if (ts.isJSDoc(comment)) comments.add(comment.getText());
      if (ts.isClassLike(node) || ts.isInterfaceDeclaration(node)) node.members.forEach(collect);
    };
    symbol.declarations?.forEach(collect);
    found.set(exported.name, [...comments].flatMap(examplesIn));
  }
  return found;
}

/** The functions and classes that an entry exports. */
function callablesOf(entry: string, program: ts.Program): string[] {
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(ENTRIES.get(entry)!)!);
  return (module === undefined ? [] : checker.getExportsOfModule(module)).flatMap((exported) => {
    const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    return symbol.flags & (ts.SymbolFlags.Function | ts.SymbolFlags.Class) ? [exported.name] : [];
  });
}

const sources = compile([...ENTRIES.values()]);
const byEntry = new Map([...ENTRIES.keys()].map((entry) => [entry, examplesOf(entry, sources)]));

/** Each example once, with a name: several entries may export one function. */
const examples = new Map<string, { readonly name: string; readonly example: Example; readonly path: string }>();
for (const [entry, found] of byEntry) {
  for (const [exported, list] of found) {
    for (const example of list) {
      if (examples.has(example.code)) continue;
      const name = `${entry}, ${exported || 'the entry itself'}`;
      examples.set(example.code, { name, example, path: join(root, `test/example-${examples.size}.ts`) });
    }
  }
}
const all = [...examples.values()];
/** The others need a page, a worker or the emulator. */
const inNode = all.filter(({ example }) => !/'copyondemand\/(browser|opfs)'/.test(example.code));

describe('the docstrings of the public entries', () => {
  it.each([...ENTRIES.keys()])('have an example for each function and class of %s', (entry) => {
    const found = byEntry.get(entry)!;
    expect([...found.values()].flat().length).toBeGreaterThan(0);
    expect(callablesOf(entry, sources).filter((name) => found.get(name)!.length === 0)).toEqual([]);
  });

  it('have every example of the sources', async () => {
    const files = (await readdir(join(root, 'src'), { recursive: true })).filter((name) => name.endsWith('.ts'));
    const texts = await Promise.all(files.map((name) => readFile(join(root, 'src', name), 'utf8')));
    const codes = texts.flatMap(examplesIn).map(({ code }) => code);
    expect(codes.filter((code) => !examples.has(code))).toEqual([]);
    expect(codes.length).toBe(examples.size);
  });
});

describe('an example compiles', () => {
  const program = compile([], new Map(all.map(({ path, example }) => [path, example.code])));

  it.each(all)('of $name', ({ path }) => {
    const file = program.getSourceFile(path)!;
    const problems = [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)];
    expect(problems.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))).toEqual([]);
  });
});

describe('an example runs', () => {
  let folder: string;
  let stop: () => Promise<void>;
  /** Texts of the examples, with the text that replaces each. */
  let places: ReadonlyMap<string, string>;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cod-examples-'));
    const path = join(folder, 'image.raw');
    await writeFile(path, image);
    const [http, nbd] = await Promise.all([serveFile(path), TestNbdServer.start(image)]);
    places = new Map([
      ['https://example.org/disk.raw', http.url],
      ['nbd://example.org/disk', nbd.uri],
    ]);
    stop = async () => {
      await Promise.all([http.close(), nbd.stop()]);
      await rm(folder, { recursive: true, force: true });
    };
  });
  afterAll(() => stop());

  it.each(inNode)('of $name', async ({ example }) => {
    let { code } = example;
    for (const [shown, used] of places) code = code.replaceAll(shown, used);
    const cwd = await mkdtemp(join(folder, 'run-'));
    await writeFile(join(cwd, 'image.raw'), readFileSync(join(folder, 'image.raw')));
    await writeFile(join(cwd, 'disk.qcow2'), tinyImage().bytes);
    const { stdout } = await promisify(execFile)(process.execPath, [await bundleUser(code)], { cwd });
    expect(stdout.split('\n').slice(0, -1)).toEqual(example.output);
  });
});
