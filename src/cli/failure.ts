/** How a command ends: exit codes, and the one line that says why. */

import { isCodError } from '../errors.ts';

/** Exit codes of the command. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** The command was called wrongly; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A signal asked the command to stop; exit code 130. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** What is printed and returned for an error. */
export interface Failure {
  readonly exitCode: number;
  /** A `COD_` code, or the name of an error that has none. */
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** Turns whatever was thrown into what the user gets to see; the message is one line. */
export function failureOf(error: unknown): Failure {
  const message = (error instanceof Error ? error.message : String(error)).replace(/\s*\n\s*/g, ' ');
  if (error instanceof Interrupted) return { exitCode: EXIT.interrupted, code: error.name, message, details: {} };
  if (error instanceof UsageError) return { exitCode: EXIT.usage, code: error.name, message, details: {} };
  if (isCodError(error)) return { exitCode: EXIT.failed, code: error.code, message, details: error.details };
  return { exitCode: EXIT.failed, code: error instanceof Error ? error.name : 'Error', message, details: {} };
}

/** The line for stderr. */
export function failureLine({ exitCode, code, message }: Failure): string {
  return `copyondemand: ${exitCode === EXIT.failed ? `${code}: ` : ''}${message}\n`;
}
