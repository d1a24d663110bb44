import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { awsCredentials, awsPlace } from '../../src/sources/s3/node-aws.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

const KEYS = { AWS_ACCESS_KEY_ID: 'AKIDENV', AWS_SECRET_ACCESS_KEY: 'envsecret' };

const CREDENTIALS_FILE = `
# a comment
[default]
aws_access_key_id = AKIDDEFAULT
aws_secret_access_key=defaultsecret
[lab]\r
aws_access_key_id=AKIDLAB\r
aws_secret_access_key = lab/secret+=\r
aws_session_token = labtoken\r
[role]
aws_access_key_id = AKIDROLE
aws_secret_access_key = rolesecret
`;
const CONFIG_FILE = `
[default]
region = eu-north-1
endpoint_url = http://default:9000
s3 =
  region = nested
[profile lab]
region = us-west-1
[profile role]
role_arn = arn:aws:iam::1:role/x
source_profile = default
[ profile  keys ]
AWS_ACCESS_KEY_ID = AKIDKEYS
aws_secret_access_key = keyssecret
[profile half]
aws_access_key_id = AKIDHALF
`;

/** The variables of a user whose home directory has the files. */
function home(files: Record<string, string> = { credentials: CREDENTIALS_FILE, config: CONFIG_FILE }) {
  const HOME = temporaryDirectory();
  mkdirSync(join(HOME, '.aws'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(HOME, '.aws', name), text);
  return { HOME };
}

describe('awsCredentials', () => {
  const lab = { accessKeyId: 'AKIDLAB', secretAccessKey: 'lab/secret+=', sessionToken: 'labtoken' };

  it.each([
    ['of the variables', KEYS, { accessKeyId: 'AKIDENV', secretAccessKey: 'envsecret' }],
    ['with a token', { ...KEYS, AWS_SESSION_TOKEN: 't' }, { accessKeyId: 'AKIDENV', sessionToken: 't' }],
    ['of the variables rather than of AWS_PROFILE', { ...KEYS, AWS_PROFILE: 'lab' }, { accessKeyId: 'AKIDENV' }],
    ['of the default profile', {}, { accessKeyId: 'AKIDDEFAULT', secretAccessKey: 'defaultsecret' }],
    ['if a variable is empty', { ...KEYS, AWS_SECRET_ACCESS_KEY: '' }, { accessKeyId: 'AKIDDEFAULT' }],
    ['of AWS_PROFILE', { AWS_PROFILE: 'lab' }, lab],
    ['of the configuration', { AWS_PROFILE: 'keys' }, { accessKeyId: 'AKIDKEYS', secretAccessKey: 'keyssecret' }],
  ])('finds those %s', async (_, env, expected) => {
    expect(await awsCredentials({ env: { ...home(), ...env } })()).toMatchObject(expected);
  });

  it('prefers a profile that its caller names', async () => {
    expect(await awsCredentials({ profile: 'lab', env: { ...home(), ...KEYS } })()).toEqual(lab);
  });

  it('reads other files on request', async () => {
    const { HOME } = home();
    const env = {
      HOME: temporaryDirectory(),
      AWS_SHARED_CREDENTIALS_FILE: join(HOME, '.aws/credentials'),
      AWS_CONFIG_FILE: join(HOME, '.aws/config'),
    };
    expect(await awsCredentials({ env: { ...env, AWS_PROFILE: 'lab' } })()).toEqual(lab);
    expect(await awsPlace(env)).toMatchObject({ region: 'eu-north-1' });
  });

  it('reads the files again at each call', async () => {
    const env = home();
    const credentials = awsCredentials({ env });
    expect(await credentials()).toMatchObject({ accessKeyId: 'AKIDDEFAULT' });
    writeFileSync(join(env.HOME, '.aws/credentials'), CREDENTIALS_FILE.replace('AKIDDEFAULT', 'AKIDNEXT'));
    expect(await credentials()).toMatchObject({ accessKeyId: 'AKIDNEXT' });
  });

  it('finds none without files and variables', async () => {
    expect(await awsCredentials({ env: { HOME: temporaryDirectory() } })()).toBeUndefined();
    expect(await awsCredentials({ env: { ...home(), AWS_PROFILE: 'half' } })()).toBeUndefined();
  });

  it.each([
    ['a profile that does not exist', { AWS_PROFILE: 'missing' }, 'COD_NOT_FOUND', /missing/],
    ['a role without the chain', { AWS_PROFILE: 'role' }, 'COD_UNSUPPORTED', /role_arn.*credential-providers/],
    [
      'a token of Kubernetes without the chain',
      { AWS_SHARED_CREDENTIALS_FILE: '/dev/null', AWS_WEB_IDENTITY_TOKEN_FILE: '/t' },
      'COD_UNSUPPORTED',
      /AWS_WEB_IDENTITY_TOKEN_FILE.*credential-providers/,
    ],
    ['a file that cannot be read', { AWS_CONFIG_FILE: '/' }, 'COD_TARGET_IO', /EISDIR/],
  ])('refuses %s', async (_, env, code, message) => {
    const finding = awsCredentials({ env: { ...home(), ...env } })();
    await expect(finding).rejects.toMatchObject({ code });
    await expect(finding).rejects.toThrow(message);
  });
});

describe('awsPlace', () => {
  it.each([
    [{}, { region: 'eu-north-1', endpoint: 'http://default:9000' }],
    [{ AWS_PROFILE: 'lab' }, { region: 'us-west-1' }],
    [{ AWS_DEFAULT_REGION: 'a' }, { region: 'a', endpoint: 'http://default:9000' }],
    [
      { AWS_REGION: 'b', AWS_DEFAULT_REGION: 'a' },
      { region: 'b', endpoint: 'http://default:9000' },
    ],
    [{ AWS_ENDPOINT_URL: 'http://x' }, { region: 'eu-north-1', endpoint: 'http://x' }],
    [
      { AWS_ENDPOINT_URL: 'http://x', AWS_ENDPOINT_URL_S3: 'http://y' },
      { region: 'eu-north-1', endpoint: 'http://y' },
    ],
  ])('of %o is %o', async (env, place) => {
    expect(await awsPlace({ ...home(), ...env })).toEqual(place);
  });
});
