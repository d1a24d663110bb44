/** What AWS's tools read: `AWS_*`, `~/.aws/credentials` and `~/.aws/config`; and AWS's own chain of credentials. */

import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CodError } from '../../errors.ts';
import { errnoOf, ioError } from '../../platform/errno.ts';
import type { S3Credentials } from './signature.ts';

type Variables = Readonly<Record<string, string | undefined>>;

/** Options of {@link awsCredentials}. */
export interface AwsCredentialsOptions {
  /** A profile of the shared files. Default: `AWS_PROFILE`, then `default`. */
  profile?: string;
  /** Environment variables. Default: those of the process, which AWS's own chain reads in any case. */
  env?: Readonly<Record<string, string | undefined>>;
}

/** Keys of a profile, and variables, that only AWS's chain understands. */
const CHAIN_KEYS = ['role_arn', 'credential_process', 'sso_session', 'sso_start_url', 'web_identity_token_file'];
const CHAIN_VARIABLES = [
  'AWS_WEB_IDENTITY_TOKEN_FILE',
  'AWS_CONTAINER_CREDENTIALS_RELATIVE_URI',
  'AWS_CONTAINER_CREDENTIALS_FULL_URI',
];
/** A variable, so that no bundler looks for the package. */
const CHAIN_PACKAGE: string = '@aws-sdk/credential-providers';

/**
 * Returns a function for `credentials` of `s3Source`. Each call looks in this order:
 *
 * 1. `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, if no `profile` is given
 * 2. the profile in `~/.aws/credentials`, then in `~/.aws/config` (`AWS_SHARED_CREDENTIALS_FILE`, `AWS_CONFIG_FILE`)
 * 3. AWS's own chain, if the optional peer `@aws-sdk/credential-providers` is installed: roles, SSO, processes, and
 *    what a container or a machine of AWS provides
 *
 * The function resolves to undefined if there are none. Then requests are anonymous.
 *
 * @throws {@link CodError} from the function: COD_NOT_FOUND when a profile that is named does not exist;
 *   COD_UNSUPPORTED when the credentials need AWS's chain and its package is not installed; COD_SOURCE_IO when the
 *   chain fails; COD_TARGET_IO when a file cannot be read.
 * @example
 * ```ts
 * import { s3Source } from 'copyondemand';
 * import { awsCredentials } from 'copyondemand/node';
 *
 * const open = () => s3Source({ bucket: 'images', key: 'disk.raw', credentials: awsCredentials({ profile: 'lab' }) });
 * ```
 */
export function awsCredentials(options: AwsCredentialsOptions = {}): () => Promise<S3Credentials | undefined> {
  const { env = process.env } = options;
  return async () => {
    const given = keysIn({
      aws_access_key_id: env['AWS_ACCESS_KEY_ID'],
      aws_secret_access_key: env['AWS_SECRET_ACCESS_KEY'],
      aws_session_token: env['AWS_SESSION_TOKEN'],
    });
    if (given !== undefined && options.profile === undefined) return given;
    const { name, isNamed, credentials, config } = await profileOf(options.profile, env);
    if (isNamed && credentials === undefined && config === undefined)
      throw new CodError('COD_NOT_FOUND', `the AWS profile ${name} is in neither of the shared files`);
    const reason = CHAIN_KEYS.find((key) => credentials?.[key] ?? config?.[key]);
    const kept = keysIn(credentials) ?? keysIn(config);
    if (kept !== undefined && reason === undefined) return kept;
    const why = reason === undefined ? CHAIN_VARIABLES.find((variable) => env[variable]) : `${reason} of ${name}`;
    return fromChain(isNamed ? name : undefined, why);
  };
}

/** Returns where S3 is: the region and the endpoint of the variables and of the profile, if they name one. */
export async function awsPlace(env: Variables = process.env): Promise<{ region?: string; endpoint?: string }> {
  const { config } = await profileOf(undefined, env);
  const region = env['AWS_REGION'] || env['AWS_DEFAULT_REGION'] || config?.['region'];
  const endpoint = env['AWS_ENDPOINT_URL_S3'] || env['AWS_ENDPOINT_URL'] || config?.['endpoint_url'];
  return { ...(region ? { region } : {}), ...(endpoint ? { endpoint } : {}) };
}

type Section = Readonly<Record<string, string>>;

interface Profile {
  readonly name: string;
  /** Whether the caller or the environment asks for this profile. */
  readonly isNamed: boolean;
  readonly credentials: Section | undefined;
  readonly config: Section | undefined;
}

async function profileOf(given: string | undefined, env: Variables): Promise<Profile> {
  const named = given ?? (env['AWS_PROFILE'] || undefined);
  const name = named ?? 'default';
  const folder = join(env['HOME'] || homedir(), '.aws');
  const [credentials, config] = await Promise.all([
    sectionsOf(env['AWS_SHARED_CREDENTIALS_FILE'] || join(folder, 'credentials')),
    sectionsOf(env['AWS_CONFIG_FILE'] || join(folder, 'config')),
  ]);
  return {
    name,
    isNamed: named !== undefined,
    credentials: credentials.get(name),
    config: config.get(name === 'default' && config.has(name) ? name : `profile ${name}`),
  };
}

async function sectionsOf(path: string): Promise<Map<string, Section>> {
  let text = '';
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) throw ioError(`read ${path}`, error, { path });
  }
  const sections = new Map<string, Record<string, string>>();
  let section: Record<string, string> = {};
  for (const line of text.split(/\r?\n/)) {
    const name = /^\[\s*(.*?)\s*\]/.exec(line)?.[1]?.replace(/\s+/g, ' ');
    if (name !== undefined) {
      section = sections.get(name) ?? {};
      sections.set(name, section);
    }
    // An indented line belongs to the value above it.
    const [, key, value] = /^([\w-]+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (key !== undefined) section[key.toLowerCase()] = value!;
  }
  return sections;
}

function keysIn(section: Readonly<Record<string, string | undefined>> | undefined): S3Credentials | undefined {
  const accessKeyId = section?.['aws_access_key_id'];
  const secretAccessKey = section?.['aws_secret_access_key'];
  const sessionToken = section?.['aws_session_token'] || undefined;
  return accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey, sessionToken } : undefined;
}

/** The part of the package that is used. */
interface Providers {
  fromNodeProviderChain(options: { profile?: string }): () => Promise<S3Credentials>;
}

/** @param why what asks for the chain; undefined if nothing does, and the machine may have credentials of its own */
async function fromChain(profile: string | undefined, why: string | undefined): Promise<S3Credentials | undefined> {
  let providers: Providers;
  try {
    providers = await import(/* webpackIgnore: true */ CHAIN_PACKAGE);
  } catch (cause) {
    if (errnoOf(cause) !== 'ERR_MODULE_NOT_FOUND') throw cause;
    if (why === undefined) return undefined;
    throw new CodError('COD_UNSUPPORTED', `${why} needs AWS's credential chain: install the package ${CHAIN_PACKAGE}`);
  }
  try {
    return await providers.fromNodeProviderChain(profile === undefined ? {} : { profile })();
  } catch (cause) {
    const { name, message } = cause instanceof Error ? cause : new Error(String(cause));
    if (why === undefined && name === 'CredentialsProviderError') return undefined;
    throw new CodError('COD_SOURCE_IO', `AWS's credential chain fails: ${message}`, { cause });
  }
}
