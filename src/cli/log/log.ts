/** The log of a command: `-v` shows it on stderr, and `--log` appends it to a file. */

import { EventLines } from './events.ts';
import { LogFile } from './log-file.ts';
import { type Level, leadsToJournal, logTo, show, tell } from './told.ts';

export interface LogOptions {
  /** Shows events on stderr. */
  readonly isShown: boolean;
  /** Path of a file. */
  readonly file?: string | undefined;
}

export interface Log {
  /** Adds a line to the file only. */
  note(level: Level, text: string): void;
  /** Tells what was suppressed, and closes the file. */
  close(): Promise<void>;
}

/** Begins to log. @throws the errors of {@link LogFile.open} */
export async function openLog({ isShown, file: path }: LogOptions): Promise<Log> {
  const onLost = ({ message }: Error): void =>
    tell('warning', `copyondemand: --log ${path}: ${message}; lines are lost until it can be written`);
  const file = path === undefined ? undefined : await LogFile.open(path, { onLost });
  const note = (level: Level, text: string): void => file?.add(new Date(), `${level}: ${text}`);
  const lines = new EventLines((level, text) => {
    const stamp = leadsToJournal() ? '' : `${new Date().toISOString()} ${level}: `;
    if (isShown) show(level, `${stamp}${text}`);
    note(level, text);
  });
  logTo({ isShown, add: note, event: (...event) => lines.add(...event) });
  return {
    note,
    close: async () => {
      lines.close();
      logTo(undefined);
      await file?.close();
    },
  };
}
