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

/**
 * The environment variables of the options that come from them in this call. Errors of wrong usage name the variable in
 * place of the option.
 */
export const variables: Map<string, string> = new Map();

/** Errors whose event is printed. */
const emitted = new WeakSet<object>();

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
  if (error instanceof UsageError) {
    const named = message.replace(/--[a-z0-9-]+/g, (option) => variables.get(option) ?? option);
    return { exitCode: EXIT.usage, code: error.name, message: named, details: {} };
  }
  if (isCodError(error)) return { exitCode: EXIT.failed, code: error.code, message, details: error.details };
  return { exitCode: EXIT.failed, code: error instanceof Error ? error.name : 'Error', message, details: {} };
}

/** Returns the line for stderr. */
export function failureLine({ exitCode, code, message }: Failure): string {
  return `copyondemand: ${exitCode === EXIT.failed ? `${code}: ` : ''}${message}\n`;
}

/** Prints the event of an error that ends the command, once, with `details` beside its own. */
export function emitError(emit: Emit, error: unknown, details: Failure['details'] = {}): void {
  if (error instanceof Error) {
    if (emitted.has(error)) return;
    emitted.add(error);
  }
  const { exitCode: _, ...fields } = failureOf(error);
  emit('error', { ...fields, details: { ...fields.details, ...details } });
}
