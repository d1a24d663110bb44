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
          let text = await readFile(path, 'utf8');
          for (const patch of patches) {
            if (patch.file !== file) continue;
            const parts = text.split(patch.find);
            if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times, not once: ${patch.find}`);
            text = parts.join(patch.replace);
          }
          return { contents: text, loader: 'ts' };
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
