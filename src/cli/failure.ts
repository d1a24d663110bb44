/** How a command ends: its exit code, and the line that reports an error. */

import { isCodError } from '../errors.ts';
import type { Emit } from './json-lines.ts';

/** Exit codes of the command. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** The arguments are invalid; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A signal asked the command to stop; exit code 130. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** An error as the command reports it. */
export interface Failure {
  readonly exitCode: number;
  /** A `COD_` code, or the error's name if it has no code. */
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** Converts any thrown value to a {@link Failure} with a message of one line. */
export function failureOf(error: unknown): Failure {
  const message = (error instanceof Error ? error.message : String(error)).replace(/\s*\n\s*/g, ' ');
  if (error instanceof Interrupted) return { exitCode: EXIT.interrupted, code: error.name, message, details: {} };
  if (error instanceof UsageError) return { exitCode: EXIT.usage, code: error.name, message, details: {} };
  if (isCodError(error)) return { exitCode: EXIT.failed, code: error.code, message, details: error.details };
  return { exitCode: EXIT.failed, code: error instanceof Error ? error.name : 'Error', message, details: {} };
}

/** Returns the line for stderr. */
export function failureLine({ exitCode, code, message }: Failure): string {
  return `copyondemand: ${exitCode === EXIT.failed ? `${code}: ` : ''}${message}\n`;
}

/** Prints the event of an error that ends the command. */
export function emitError(emit: Emit, error: unknown): void {
  const { exitCode: _, ...fields } = failureOf(error);
  emit('error', fields);
}
