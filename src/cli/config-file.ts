/**
 * The file of `serve --config`: JSON with comments, with the options of `serve` by their names in camel case.
 *
 *     { "socket": "/run/disks.sock",                     // of the process: PROCESS_OPTIONS, and `control`
 *       "defaults": { "rate": "20M" },                   // of all disks: DISK_OPTIONS
 *       "disks": [{ "name": "a", "source": "https://…", "target": "/srv/a.raw", "rate": "5M" }] }
 *
 * A default that a disk cannot have is left out for this disk, such as `user` for a source that is a file.
 */

import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, type Option } from 'commander';
import { isCodError } from '../errors.ts';
import { ioError } from '../platform/errno.ts';
import { type Json, JsonObject, parseCommentedJson } from './commented-json.ts';
import { Repeatable } from './definitions/options.ts';
import { definitions } from './definitions/program.ts';
import { UsageError } from './failure.ts';
import { checkSourceFlags, hasOption } from './http-options.ts';
import { checkListenerFlags, type ListenerFlags } from './listening.ts';
import { checkDiskFlags, type DiskFlags } from './served-disk.ts';
import { parseSourceUri, type SourceUri } from './source-uri.ts';
import { checkTarget } from './target-device.ts';

/** Options of `serve` that a disk has, as long names. */
export const DISK_OPTIONS: readonly string[] = [
  ...['rate', 'rate-file', 'rate-group', 'order', 'record-order', 'same-source', 'take-over', 'grow', 'overwrite'],
  ...[
    'metadata',
    'manifest',
    'manifest-root',
    'seed',
    'read-only',
    'no-hydrate',
    'format',
    'backing',
    'header',
    'user',
    'user-file',
    'netrc',
    'cacert',
  ],
  ...['cert', 'key', 'insecure', 'stream-whole', 'endpoint-url', 'no-sign-request', 'retries', 'timeout'],
];
/** Those that the process has. */
export const PROCESS_OPTIONS: readonly string[] = ['socket', 'host', 'port', 'tls-cert', 'tls-key', 'tls-ca'];
/** Options that need the background copy. */
const COPY_OPTIONS: readonly string[] = ['rate', 'rate-file', 'rate-group', 'order'];
/** Options that change while the disk is served. */
const RATES: ReadonlySet<string> = new Set(['rate', 'rateFile', 'rateGroup']);

/** One disk of the file. */
export interface DiskConfig {
  readonly name: string;
  readonly target: string;
  /** Undefined: a copy that exists is served without its source. */
  readonly uri: SourceUri | undefined;
  readonly flags: DiskFlags;
  /** Equal for two configurations that differ in nothing but rates. */
  readonly identity: string;
  /** Equal for two configurations with the same rates. */
  readonly rates: string;
}

/** What the file says. */
export interface Config {
  /** Path of the control socket of all disks. Undefined: there is none. */
  readonly control: string | undefined;
  readonly listener: ListenerFlags;
  readonly disks: readonly DiskConfig[];
}

type Values = Readonly<Record<string, unknown>>;

/**
 * Reads and checks the file. Opens no source and no target.
 * @throws {@link UsageError} with file, line, disk and key, when something is wrong; {@link CodError} COD_NOT_FOUND,
 * COD_TARGET_IO when the file cannot be read.
 */
export async function readConfig(path: string): Promise<Config> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw ioError(`read ${path}`, cause, { path });
  }
  return parseConfig(text, path);
}

/** @throws as {@link readConfig} */
export function parseConfig(text: string, path: string): Config {
  const serve = definitions('').commands.find((command) => command.name() === 'serve')!;
  const [ofProcess, ofDisk] = [PROCESS_OPTIONS, DISK_OPTIONS].map((names) => optionsOf(serve, names)) as [
    Options,
    Options,
  ];
  const file = objectOf(parseCommentedJson(text, path), { path, line: 1, what: 'the file' });
  const place = { path, line: file.line, what: 'the file' };
  const listener = valuesOf(file, ofProcess, place, ['control', 'defaults', 'disks']) as ListenerFlags;
  const controlAt = file.members.get('control');
  const control =
    controlAt && wrongAt({ path, line: controlAt.line, what: '"control"' }, () => textOf(controlAt.value));
  wrongAt(place, () => checkListenerFlags(listener));
  const defaultsAt = file.members.get('defaults');
  const defaults =
    defaultsAt === undefined
      ? {}
      : valuesOf(
          objectOf(defaultsAt.value, { path, line: defaultsAt.line, what: 'defaults' }),
          ofDisk,
          { path, line: defaultsAt.line, what: 'defaults' },
          [],
        );
  const list = file.members.get('disks');
  if (list === undefined || !Array.isArray(list.value))
    throw wrong({ ...place, line: list?.line ?? file.line }, 'it needs "disks", a list of objects');
  const disks = (list.value as readonly Json[]).map((value, index) => {
    const disk = objectOf(value, { path, line: list.line, what: `disks[${index}]` });
    return diskOf(disk, { path, line: disk.line, what: `disks[${index}]` }, ofDisk, defaults);
  });
  refuseTwice(disks, path, list.value as readonly JsonObject[]);
  return { listener, control, disks };
}

type Options = ReadonlyMap<string, Option>;

/** Returns options of the command by their keys. */
function optionsOf(serve: Command, names: readonly string[]): Options {
  return new Map(
    names.map((name) => {
      const option = serve.options.find(({ long }) => long === `--${name}`)!;
      return [option.attributeName(), option];
    }),
  );
}

/** Where something stands in the file. */
interface Place {
  readonly path: string;
  readonly line: number;
  readonly what: string;
}

function wrong({ path, line, what }: Place, message: string): UsageError {
  return new UsageError(`${path}:${line}: ${what}: ${message}`);
}

/** Names the place in errors of `check` that say that the file is wrong. */
function wrongAt<T>(place: Place, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (error instanceof UsageError || error instanceof InvalidArgumentError || isCodError(error))
      throw wrong(place, error.message);
    throw error;
  }
}

function objectOf(value: Json, place: Place): JsonObject {
  if (value instanceof JsonObject) return value;
  throw wrong(place, 'an object is expected here');
}

/** Returns the values of an object by their keys. `others` are keys that it may have too. */
function valuesOf(object: JsonObject, options: Options, place: Place, others: readonly string[]): Values {
  const values: Record<string, unknown> = {};
  for (const [key, { value, line }] of object.members) {
    if (others.includes(key)) continue;
    const at = { ...place, line, what: `${place.what}, ${JSON.stringify(key)}` };
    const option = options.get(key);
    if (option === undefined) throw wrong(at, 'there is no such key here');
    values[key] = wrongAt(at, () => toValue(option, value));
  }
  return values;
}

function toValue(option: Option, value: Json): unknown {
  if (option.isBoolean() || option.negate) {
    if (typeof value === 'boolean') return value;
    throw new UsageError('true or false is expected here');
  }
  if (option instanceof Repeatable) {
    const list = typeof value === 'string' ? [value] : value;
    if (Array.isArray(list) && list.every((each) => typeof each === 'string')) return list;
    throw new UsageError('a string or a list of strings is expected here');
  }
  if (typeof value !== 'string' && typeof value !== 'number')
    throw new UsageError('a string or a number is expected here');
  return option.parseArg === undefined ? textOf(value) : option.parseArg(String(value), undefined);
}

function textOf(value: Json | undefined): string {
  if (typeof value === 'string') return value;
  throw new UsageError('a string is expected here');
}

function diskOf(object: JsonObject, place: Place, options: Options, defaults: Values): DiskConfig {
  const text = (key: string): string | undefined => {
    const member = object.members.get(key);
    if (member === undefined) return undefined;
    return wrongAt({ ...place, line: member.line, what: `${place.what}, "${key}"` }, () => textOf(member.value));
  };
  const [name, target, source] = [text('name'), text('target'), text('source')];
  if (name === undefined) throw wrong(place, 'it needs "name", the name of its export');
  const named = { ...place, what: `${place.what} ${JSON.stringify(name)}` };
  if (target === undefined) throw wrong(named, 'it needs "target", a path');
  const own = valuesOf(object, options, named, ['name', 'target', 'source']);
  return wrongAt(named, () => {
    checkTarget(target);
    const uri = source === undefined ? undefined : parseSourceUri(source);
    const values = { ...fitting(defaults, { uri, options, own }), ...own };
    const { rate, ...others } = { hydrate: true, ...values, export: name } as Values & { rate?: unknown };
    const flags = { ...others, ...(typeof rate === 'number' && { rate }) } as unknown as DiskFlags;
    checkDiskFlags(flags);
    if (uri !== undefined) checkSourceFlags(uri, flags);
    const keys = [...options.keys()];
    const pick = (isRate: boolean) => keys.filter((key) => RATES.has(key) === isRate).map((key) => values[key] ?? null);
    return {
      ...{ name, target, uri, flags },
      identity: JSON.stringify([name, target, source, ...pick(false)]),
      rates: JSON.stringify(pick(true)),
    };
  });
}

/** Returns the defaults that a disk can have. */
function fitting(
  defaults: Values,
  { uri, options, own }: { uri: SourceUri | undefined; options: Options; own: Values },
): Values {
  const { hydrate = true, readOnly = false } = { ...defaults, ...own };
  const fits = (key: string): boolean => {
    const name = options.get(key)!.long!;
    if (COPY_OPTIONS.includes(name.slice(2)) && (!hydrate || readOnly)) return false;
    return uri === undefined || hasOption(uri, name);
  };
  return Object.fromEntries(Object.entries(defaults).filter(([key]) => fits(key)));
}

/** @throws {@link UsageError} if two disks have one name, target or metadata */
function refuseTwice(disks: readonly DiskConfig[], path: string, objects: readonly JsonObject[]): void {
  const seen = new Map<string, string>();
  for (const [index, { name, target, flags }] of disks.entries()) {
    const place = { path, line: objects[index]!.line, what: `disks[${index}] ${JSON.stringify(name)}` };
    const parts = [
      ['name', name],
      ['target', resolve(target)],
      ['metadata', resolve(flags.metadata ?? target)],
    ] as const;
    for (const [kind, value] of parts) {
      const other = seen.get(`${kind} ${value}`);
      if (other !== undefined) throw wrong(place, `it has the ${kind} of ${other}, ${JSON.stringify(value)}`);
      seen.set(`${kind} ${value}`, `disks[${index}]`);
    }
  }
}
