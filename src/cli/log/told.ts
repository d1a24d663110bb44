/**
 * Lines for people: all that the command prints on stderr goes through here, and from here into its log.
 *
 * Under systemd, stderr leads to the journal: each line has a priority as sd-daemon(3) says, and no time of its own.
 */

import { fstatSync } from 'node:fs';

export type Level = 'error' | 'warning' | 'notice' | 'info';

const PRIORITIES: Readonly<Record<Level, number>> = { error: 3, warning: 4, notice: 5, info: 6 };

/** Takes the lines that are not about an event: events come to it by themselves. */
export interface LogSink {
  /** Whether it shows events on stderr. */
  readonly isShown: boolean;
  add(level: Level, text: string): void;
  /** An event that no channel tells. */
  event(level: Level, kind: string, subject: string, text: string): void;
}

let sink: LogSink | undefined;
let print: (text: string) => void = (text) => void process.stderr.write(text);
let isJournal: boolean | undefined;

/** Whether stderr is the stream of the journal that systemd has opened. */
export function leadsToJournal(): boolean {
  isJournal ??= isStream(process.env['JOURNAL_STREAM']);
  return isJournal;
}

function isStream(stream: string | undefined): boolean {
  if (!stream) return false;
  try {
    const { dev, ino } = fstatSync(process.stderr.fd, { bigint: true });
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** Returns a text as it is printed on stderr, with the end of its last line. */
export function forStderr(level: Level, text: string): string {
  const lines = text.replace(/\n$/, '').split('\n');
  const prefix = leadsToJournal() ? `<${PRIORITIES[level]}>` : '';
  return lines.map((line) => `${prefix}${line}\n`).join('');
}

/** Prints a text on stderr, and adds it to the log. */
export function tell(level: Level, text: string): void {
  print(forStderr(level, text));
  sink?.add(level, text);
}

/** Prints a text about an event on stderr, unless the log does so itself. */
export function tellEvent(level: Level, text: string): void {
  if (!isEventShown()) print(forStderr(level, text));
}

/** Adds an event that no channel tells to the log. Lines of one kind and subject are limited. */
export function logEvent(level: Level, kind: string, subject: string, text: string): void {
  sink?.event(level, kind, subject, text);
}

/** Whether the log shows events on stderr. */
export function isEventShown(): boolean {
  return sink?.isShown ?? false;
}

/** Prints a line of the log on stderr. */
export function show(level: Level, text: string): void {
  print(forStderr(level, text));
}

/** From now on `to` takes the lines. */
export function logTo(to: LogSink | undefined): void {
  sink = to;
}

/** From now on `writer` writes to stderr, which has a bar in its last line. Undefined: the bar is gone. */
export function printThrough(writer: ((text: string) => void) | undefined): void {
  print = writer ?? ((text) => void process.stderr.write(text));
}
