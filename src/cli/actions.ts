/** What each command does. The module of a command is loaded when it is called. */

import type { Command } from 'commander';
import type { ChangesFlags } from './changes.ts';
import type { CopyFlags } from './copy.ts';
import type { ExportFlags } from './export.ts';
import { UsageError } from './failure.ts';
import type { FinishFlags } from './finish.ts';
import type { InspectFlags } from './inspect.ts';
import type { ManifestFlags } from './manifest.ts';
import { type MonitoringFlags, monitored } from './monitoring.ts';
import type { RemoveFlags } from './remove.ts';
import type { RepairFlags } from './repair.ts';
import type { ServeFlags } from './serve.ts';
import type { SnapshotFlags } from './snapshot.ts';
import type { StatusFlags } from './status.ts';
import type { SteeringFlags } from './steering.ts';
import type { VerifyFlags } from './verify.ts';

/** Gets the arguments of the command and its options. */
type Action = Parameters<Command['action']>[0];

/** A rate as an argument or an option. */
type Rate = number | 'unlimited';

function limitOf(rate: Rate): number | undefined {
  return rate === 'unlimited' ? undefined : rate;
}

/** Returns the options without `--rate unlimited`. */
function limited<Flags extends { readonly rate?: number }>({
  rate,
  ...flags
}: Omit<Flags, 'rate'> & { readonly rate?: Rate }): Flags {
  return (typeof rate === 'number' ? { ...flags, rate } : flags) as Flags;
}

type Serve = ServeFlags & { readonly config?: string };

async function serveAny(source: string | undefined, target: string | undefined, flags: Serve): Promise<void> {
  if (flags.config !== undefined) {
    const { refuseBeside, serveConfig } = await import('./serve-config.ts');
    refuseBeside({ ...flags }, [source, target]);
    return serveConfig(flags.config, flags);
  }
  if (source === undefined) throw new UsageError("missing required argument 'source', or --config");
  const { serve } = await import('./serve.ts');
  await (target === undefined ? serve(undefined, source, limited(flags)) : serve(source, target, limited(flags)));
}

/** The action of each command, by its name. */
export const ACTIONS: Readonly<Record<string, Action>> = {
  copy: (source: string, target: string, flags: CopyFlags & MonitoringFlags) =>
    monitored(flags, async () => (await import('./copy.ts')).copy(source, target, limited(flags))),
  serve: (source: string | undefined, target: string | undefined, flags: Serve & MonitoringFlags) =>
    monitored(flags, () => serveAny(source, target, flags)),
  status: async (target: string | undefined, flags: StatusFlags) => (await import('./status.ts')).status(target, flags),
  pause: async (target: string, flags: SteeringFlags) => (await import('./steering.ts')).steer('pause', target, flags),
  resume: async (target: string, flags: SteeringFlags) =>
    (await import('./steering.ts')).steer('resume', target, flags),
  'set-rate': async (target: string, rate: Rate, flags: SteeringFlags) =>
    (await import('./steering.ts')).steer('set-rate', target, flags, limitOf(rate)),
  snapshot: async (target: string, to: string, flags: SnapshotFlags) =>
    (await import('./snapshot.ts')).snapshot(target, to, flags),
  inspect: async (target: string, flags: InspectFlags) => (await import('./inspect.ts')).inspect(target, flags),
  finish: async (target: string, flags: FinishFlags) => (await import('./finish.ts')).finish(target, flags),
  changes: async (target: string, flags: ChangesFlags) => (await import('./changes.ts')).changes(target, flags),
  remove: async (target: string, flags: RemoveFlags) => (await import('./remove.ts')).remove(target, flags),
  repair: async (target: string, flags: RepairFlags) => (await import('./repair.ts')).repair(target, flags),
  export: async (target: string, flags: ExportFlags) => (await import('./export.ts')).exportCopy(target, flags),
  manifest: async (source: string, file: string, flags: ManifestFlags) =>
    (await import('./manifest.ts')).manifest(source, file, flags),
  verify: async (source: string, target: string | undefined, flags: VerifyFlags) => {
    const { verify } = await import('./verify.ts');
    await (target === undefined ? verify(undefined, source, limited(flags)) : verify(source, target, limited(flags)));
  },
  demo: async () => (await import('./demo.ts')).demo(),
  explain: async (code?: string) => (await import('./explain.ts')).explain(code),
  completion: async (shell: 'bash' | 'zsh' | 'fish') => (await import('./completion.ts')).completion(shell),
  'demo-worker': async (url: string, target: string) => (await import('./demo/worker.ts')).runWorker(url, target),
};
