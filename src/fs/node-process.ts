/** Identifies the machine, the boot and the processes. Complete on Linux; elsewhere some fields are unknown. */

import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { errnoOf } from '../platform/errno.ts';
import { systemClock } from '../platform/system-clock.ts';

/** Identifies a process among all that have or had its number. Unknown fields are absent. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Start time in the kernel's clock ticks since boot. */
  readonly startTime?: number | undefined;
  readonly bootId?: string | undefined;
  /** The PID namespace that `pid` belongs to. */
  readonly pidNamespace?: string | undefined;
}

/** The machine that a lock is taken on, with its clocks. Tests pass others. */
export interface Machine {
  /** Names the running kernel. */
  readonly bootId?: string | undefined;
  /** Names the machine, the same after a reboot. */
  readonly machineId?: string | undefined;
  readonly host: string;
  /** Milliseconds of a clock that never decreases. It may stand still while the machine is suspended. */
  now(): number;
  /** Milliseconds of the wall clock. */
  wallNow(): number;
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /**
   * Calls `task` each `ms` milliseconds until the returned function is called; the first time earlier, so that the
   * calls of many do not coincide. Does not keep the process running.
   */
  repeat(ms: number, task: () => void): () => void;
}

let machine: Machine | undefined;

/** Returns the machine that this process runs on. */
export function thisMachine(): Machine {
  machine ??= {
    bootId: bootId(),
    machineId: machineId(),
    host: hostname(),
    now: systemClock.now,
    wallNow: Date.now,
    sleep: systemClock.sleep,
    repeat: (ms, task) => {
      let timer = setTimeout(() => {
        timer = setInterval(task, ms).unref();
        task();
      }, Math.random() * ms).unref();
      // It ends timers of both kinds.
      return () => clearTimeout(timer);
    },
  };
  return machine;
}

/** Returns the name of the current boot, or undefined if the system has none. */
export function bootId(): string | undefined {
  return attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
}

/** Returns a hash of the machine's id, which is not for others (machine-id(5)). */
function machineId(): string | undefined {
  const id = attempt(() => readFileSync('/etc/machine-id', 'utf8').trim());
  if (id === undefined || !/^[0-9a-f]{32}$/.test(id)) return undefined;
  return createHash('sha256').update(`copyondemand ${id}`).digest('hex').slice(0, 32);
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
 * processes cannot be looked up. A process of another boot counts as dead.
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
