/** Identifies the boot and the processes of the machine. Complete on Linux; elsewhere some fields are unknown. */

import { readFileSync, readlinkSync } from 'node:fs';
import { errnoOf } from '../platform/errno.ts';

/** Identifies a process among all that have or had its number. Unknown fields are absent. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Start time in the kernel's clock ticks since boot. */
  readonly startTime?: number | undefined;
  readonly bootId?: string | undefined;
  /** The PID namespace that `pid` belongs to. */
  readonly pidNamespace?: string | undefined;
}

/** Returns the name of the current boot, or undefined if the system has none. */
export function bootId(): string | undefined {
  return attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
}

/** Returns the identity of this process. */
export function thisProcess(): ProcessIdentity {
  return {
    pid: process.pid,
    startTime: processStat(process.pid)?.startTime,
    bootId: bootId(),
    pidNamespace: attempt(() => readlinkSync('/proc/self/ns/pid')),
  };
}

/**
 * Whether `other` may still be running, as seen from `self`. True for another container of the same boot, whose
 * processes cannot be looked up.
 * Another machine that shares the directory over a network looks like an earlier boot, so its processes count as dead.
 */
export function mayBeAlive(other: ProcessIdentity, self: ProcessIdentity): boolean {
  if (other.bootId !== undefined && self.bootId !== undefined && other.bootId !== self.bootId) return false;
  if (other.pidNamespace !== self.pidNamespace) return true;
  try {
    process.kill(other.pid, 0);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
  }
  const stat = processStat(other.pid);
  if (stat === undefined) return true;
  return (
    stat.state !== 'Z' && stat.state !== 'X' && (other.startTime === undefined || other.startTime === stat.startTime)
  );
}

/**
 * Returns fields 3 and 22 of /proc/PID/stat (proc_pid_stat(5)). Field 2 is a name in parentheses, which may contain
 * anything.
 */
function processStat(pid: number): { state: string; startTime: number } | undefined {
  return attempt(() => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[3 - 3]!, startTime: Number(fields[22 - 3]) };
  });
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
