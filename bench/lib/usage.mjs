/** What a process has used, from /proc. Linux only. */

import { readFileSync } from 'node:fs';

/** Microseconds in a tick of the kernel's process times: a hundred ticks a second on every common machine. */
const TICK_US = 10_000;

/** Processor time of a process in µs, in steps of 10 ms. */
export function cpuMicroseconds(pid) {
  // The name of the program may contain spaces and brackets.
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_US;
}

/** The largest resident memory so far, in MiB. */
export function peakMiB(pid) {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))[1]) / 1024;
}
