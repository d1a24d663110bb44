/**
 * Builds of patched sources: smaller constants, or a planted bug. A patch that does not fit the sources is an error.
 */

import { mkdir, readFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { NODE_BUNDLE } from '../support/node-bundle.ts';

const root = pathToFileURL(`${process.cwd()}/`);
const cache = new URL('node_modules/.cache/crash/', root);

/** A text that occurs exactly once in a file, and its replacement. */
export interface Patch {
  /** Path from the root of the repository. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/**
 * Applies patches of one file to its text.
 * @throws when a patch does not fit
 */
export function patched(text: string, patches: readonly Patch[]): string {
  let made = text;
  for (const { file, find, replace } of patches) {
    const parts = made.split(find);
    if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times, not once: ${find}`);
    made = parts.join(replace);
  }
  return made;
}

function patching(patches: readonly Patch[]): Plugin {
  const files = new Set(patches.map(({ file }) => file));
  return {
    name: 'patches',
    setup(context) {
      for (const file of files) {
        const path = fileURLToPath(new URL(file, root));
        const filter = new RegExp(`${file.split('/').at(-1)!.replaceAll('.', '\\.')}$`);
        context.onLoad({ filter }, async (args) => {
          if (args.path !== path) return undefined;
          const text = await readFile(path, 'utf8');
          const here = patches.filter((patch) => patch.file === file);
          return { contents: patched(text, here), loader: 'ts' };
        });
      }
    },
  };
}

/**
 * Bundles `entry` with the patches, without packages. Resolves to the URL of the bundle.
 * @throws when a patch does not fit the sources
 */
export async function patchedBuild(entry: string, name: string, patches: readonly Patch[]): Promise<string> {
  await mkdir(cache, { recursive: true });
  const outfile = new URL(`${name}-${process.pid}.mjs`, cache);
  await build({
    ...NODE_BUNDLE,
    absWorkingDir: fileURLToPath(root),
    entryPoints: [entry],
    outfile: fileURLToPath(outfile),
    sourcemap: 'inline',
    logLevel: 'silent',
    plugins: [patching(patches)],
  });
  return pathToFileURL(fileURLToPath(outfile)).href;
}
