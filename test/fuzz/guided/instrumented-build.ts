/** Bundles a fuzz target with instrumented sources, and with an instrumented build of the WASM core. */

import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import asc from 'assemblyscript/asc';
import { build, type Plugin } from 'esbuild';
import { type Patch, patched } from '../../crash/patched-build.ts';
import { NODE_BUNDLE } from '../../support/node-bundle.ts';
import { type Counters, instrumented, instrumentedCore, type Literal } from './instrument.ts';

/** Code that is not a parser's and runs once for each byte. */
const PLAIN: ReadonlySet<string> = new Set(['assembly/crc32c.ts', 'assembly/sums.ts', 'assembly/interface.ts']);

/** Sources of the core outside of its folder. */
const SHARED: readonly string[] = ['src/wasm/codes.ts', 'src/wasm/problems.ts', 'src/core/layout.ts'];

/** What a build has. The bundle exports what its entry does. */
export interface GuidedBuild {
  readonly bundle: string;
  /** How many counters the bundle has. */
  readonly counters: number;
  /** The literals of each source, and the first of its counters. Counters of a source follow each other. */
  readonly sources: readonly { readonly first: number; readonly literals: readonly Literal[] }[];
}

export interface GuidedBuildOptions {
  /** A module, as a path from the working directory. */
  readonly entry: string;
  /** Which sources are instrumented: the beginnings of their paths. */
  readonly instrument: readonly string[];
  readonly patches?: readonly Patch[];
}

/** Compiles the core from instrumented sources. */
async function coreOf(folder: string, counters: Counters): Promise<Buffer> {
  const sources = join(folder, 'assembly');
  await mkdir(sources, { recursive: true });
  for (const name of await readdir('assembly')) {
    const text = await readFile(join('assembly', name), 'utf8');
    const isPlain = PLAIN.has(`assembly/${name}`) || !name.endsWith('.ts');
    await writeFile(join(sources, name), isPlain ? text : instrumentedCore(name, text, counters));
  }
  for (const path of SHARED) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await copyFile(path, join(folder, path));
  }
  const outFile = 'core.wasm';
  const args = ['assembly/index.ts', '--outFile', outFile, '-O1', '--runtime', 'stub', '--use', 'abort='];
  const { error, stderr } = await asc.main([...args, '--baseDir', folder]);
  if (error) throw new Error(`the instrumented core does not compile: ${stderr.toString()}`);
  return readFile(join(folder, outFile));
}

/** Makes the core of the bundle the instrumented one. */
function corePatches(core: string): Patch[] {
  const file = 'src/wasm/core.ts';
  return [
    {
      file,
      find: '  const bytes: number[] = [];\n',
      replace: `  if (true) return Uint8Array.from(Buffer.from('${core}', 'base64'));\n  const bytes: number[] = [];\n`,
    },
    {
      file,
      find: 'return new WebAssembly.Instance(module);',
      replace: 'return new WebAssembly.Instance(module, { fuzz: { hit: (globalThis as any).__fuzz.hit } });',
    },
  ];
}

/** Builds into a new folder below node_modules/.cache, where the bundle finds its packages. */
export async function guidedBuild(options: GuidedBuildOptions): Promise<GuidedBuild> {
  const { entry, instrument, patches = [] } = options;
  const folder = resolve(`node_modules/.cache/guided/${process.pid}-${performance.now()}`);
  await mkdir(folder, { recursive: true });
  const counters: Counters = { next: 0 };
  const sources: { first: number; literals: readonly Literal[] }[] = [];
  const usesCore = instrument.includes('assembly');
  const all = usesCore ? [...patches, ...corePatches((await coreOf(folder, counters)).toString('base64'))] : patches;
  const plugin: Plugin = {
    name: 'counters',
    setup(context) {
      context.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const file = relative('.', path);
        if (file.startsWith('..') || !instrument.some((beginning) => file.startsWith(beginning))) return undefined;
        const text = await readFile(path, 'utf8');
        const here = all.filter((patch) => patch.file === file);
        // Before the first wait, so that the counters of a source follow each other.
        const first = counters.next;
        const made = instrumented(file, patched(text, here), counters);
        sources.push({ first, literals: made.literals });
        return { contents: made.text, loader: 'ts' };
      });
    },
  };
  const bundle = join(folder, 'bundle.mjs');
  await build({
    ...NODE_BUNDLE,
    entryPoints: [entry],
    outfile: bundle,
    conditions: ['node'],
    sourcemap: 'inline',
    logLevel: 'error',
    plugins: [plugin],
  });
  return { bundle, counters: counters.next, sources };
}

/** Removes what {@link guidedBuild} made. */
export async function removeBuild({ bundle }: GuidedBuild): Promise<void> {
  await rm(join(bundle, '..'), { recursive: true, force: true });
}
