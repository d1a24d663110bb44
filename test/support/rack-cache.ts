/** The cache of a rack: nginx as docs/SCALING.md configures it. */

import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blockOf } from './documents.ts';
import { freePort, type Nginx, startNginx } from './nginx.ts';

export interface RackCache extends Nginx {
  /** How many requests for slices the cache answered: by itself, from the origin, or otherwise. */
  answers(): Record<string, number>;
  /** Kills it and starts it again with what it has on its disk. */
  restart(): Promise<void>;
}

/** Returns the recipe, for other paths, another address and another origin. */
function recipe(folder: string, port: number, origin: string): string {
  const text = blockOf('docs/SCALING.md', 'rack');
  const changes: readonly (readonly [string, string])[] = [
    ['/var/cache/images', `${folder}/cache`],
    ['listen 8080;', `listen 127.0.0.1:${port};`],
    ['server images.example.org:80;', `server ${new URL(origin).host};`],
  ];
  return changes.reduce((changed, [from, to]) => {
    if (!changed.includes(from)) throw new Error(`the recipe of docs/SCALING.md has no ${from}`);
    return changed.replace(from, to);
  }, text);
}

/** @param folder where it keeps its files */
export async function startRackCache(folder: string, origin: string): Promise<RackCache> {
  const port = await freePort();
  mkdirSync(folder, { recursive: true });
  const log = `log_format slices '$upstream_cache_status'; log_subrequest on; access_log ${folder}/access.log slices;`;
  const start = (): Promise<Nginx> => startNginx(folder, port, `${log} ${recipe(folder, port, origin)}`);
  let nginx = await start();
  return {
    url: nginx.url,
    kill: () => nginx.kill(),
    async restart() {
      await nginx.kill();
      nginx = await start();
    },
    answers() {
      const counts: Record<string, number> = {};
      for (const status of readFileSync(join(folder, 'access.log'), 'utf8').trim().split('\n'))
        counts[status] = (counts[status] ?? 0) + 1;
      return counts;
    },
  };
}
