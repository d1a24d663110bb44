/** What tells this boot and this process from every other one. Linux says; elsewhere some of it is unknown. */

import { readFileSync, readlinkSync } from 'node:fs';
import { errnoOf } from '../platform/errno.ts';

/** A process, told from every other one that has had or will have its number. What is unknown is absent. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it started, in the kernel's clock ticks since boot. */
  readonly startTime?: number | undefined;
  readonly bootId?: string | undefined;
  /** The name space in which `pid` means something. */
  readonly pidNamespace?: string | undefined;
}

/** The name of the present boot; `undefined` where there is none. */
export function bootId(): string | undefined {
  return attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
}

/** This process. */
export function thisProcess(): ProcessIdentity {
  return {
    pid: process.pid,
    startTime: processStat(process.pid)?.startTime,
    bootId: bootId(),
    pidNamespace: attempt(() => readlinkSync('/proc/self/ns/pid')),
  };
}

/**
 * Whether `other` may still run, as seen from `self`. A process in another container of the same boot cannot be looked up: it may.
 * Another machine that shares the directory over a network looks like an earlier boot of this one, and so as if it were dead.
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

/** Fields 3 and 22 of /proc/PID/stat (proc_pid_stat(5)). The second field is a name in parentheses, which may hold anything. */
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
