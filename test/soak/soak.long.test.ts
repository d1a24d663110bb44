/** Three minutes of real servers with faults, over HTTP and NBD. `COD_SOAK_SEED` chooses another schedule. */

import { expect, test } from 'vitest';
import { httpSource } from '../../src/index.ts';
import { nbdSource } from '../../src/nbd.ts';
import { systemClock } from '../../src/platform/system-clock.ts';
import { CrashingFileSystem, seededRandom } from '../../src/testing/index.ts';
import { type Ask, HostileServer } from '../support/http-server.ts';
import { chunk, type NbdAsk, optionReply, TestNbdServer, u16, u32 } from '../support/nbd-server.ts';
import { HTTP_FAULTS, type HttpFault, type Plan, planOf } from './http-faults.ts';
import { type SoakFigures, type SoakOptions, soak } from './soak.ts';
import { Weather } from './weather.ts';

const LENGTH_MS = 180_000;
const SEED = Number(process.env['COD_SOAK_SEED'] ?? 1);
/** Phases of 20 ms to 9 s. */
const SCALE = 0.01;
const STALL_MS = 500;
const RETRY = { baseDelayMs: 20, maxDelayMs: 200 };
const BYTES_PER_MS = 400;
const PIECE_BYTES = 32_768;

const common = {
  clock: systemClock,
  imageBytes: 2 ** 20,
  lengthMs: LENGTH_MS,
  lifeMs: 30_000,
  pauseMs: 200,
  noticeMs: 10_000,
} as const;

async function reported(name: string, run: Promise<SoakFigures>): Promise<void> {
  try {
    const figures = await run;
    console.log(`${name}, seed ${SEED}: ${JSON.stringify(figures)}`);
    expect(figures.copies).toBeGreaterThan(0);
  } catch (cause) {
    const command = `COD_SOAK_SEED=${SEED} npx vitest run --project long test/soak/soak.long.test.ts -t '${name}'`;
    throw new Error(`${(cause as Error).message}\nto repeat: ${command}`, { cause });
  }
}

// Each takes `onTestFinished` from its own context: the global one means any test that runs at that moment.
test.concurrent('a real HTTP server that has every fault', async ({ onTestFinished }) => {
  const random = seededRandom(SEED);
  const weather = new Weather(systemClock, random.fork(), Object.keys(HTTP_FAULTS) as HttpFault[], { scale: SCALE });
  const server = await HostileServer.start(new Uint8Array(1));
  onTestFinished(() => server.stop());
  const publish: SoakOptions<HttpFault>['publish'] = (bytes, copy) => {
    const image = { bytes, etag: `"v${copy}"` };
    server.behaviour = (ask) => void carryOut(planOf(weather.meet(), { ...ask, ...rangeOf(ask) }, image, random), ask);
    const open = () => httpSource(server.url, { stallTimeoutMs: STALL_MS, retry: RETRY });
    return { identity: `etag:${image.etag}`, open };
  };
  const isTold = (kind: HttpFault): boolean => HTTP_FAULTS[kind] === 'told';
  const fileSystem = new CrashingFileSystem();
  await reported('a real HTTP server', soak({ ...common, random, weather, fileSystem, isTold, publish }));
});

/** The server's own content is none. */
function rangeOf({ headers }: Ask): { start: number; end: number } {
  const [, first, last] = /^bytes=(\d*)-(\d+)$/.exec(headers['range'] ?? '') ?? [];
  return { start: Number(first), end: Number(last) + 1 };
}

async function carryOut(plan: Plan, { socket }: Ask): Promise<void> {
  await systemClock.sleep(plan.delayMs / 10);
  if (plan.refused !== undefined) return void socket.resetAndDestroy();
  if (plan.sent < 0) return;
  const headers = { ...plan.headers, ...(plan.headers['retry-after'] === undefined ? {} : { 'retry-after': '1' }) };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`HTTP/1.1 ${plan.status} Status\r\n${lines.join('')}\r\n`);
  const { bytesPerSecond } = plan;
  const pieceBytes = bytesPerSecond === undefined ? PIECE_BYTES : bytesPerSecond / 10;
  for (let at = 0; at < plan.sent && !socket.destroyed; at += pieceBytes) {
    await systemClock.sleep(bytesPerSecond === undefined ? PIECE_BYTES / BYTES_PER_MS : 100);
    socket.write(plan.body.subarray(at, Math.min(plan.sent, at + pieceBytes)));
  }
  if (plan.ends === 'reset') socket.resetAndDestroy();
  else if (plan.ends === 'end' && plan.sent < plan.body.length) socket.end();
}

const NBD_FAULTS = [
  'hangs up',
  'hangs up at once',
  'no greeting',
  'other protocol',
  'no such export',
  'silence',
  'cut reply',
  'drip',
  'EIO',
  'ESHUTDOWN',
  'EINVAL',
  'wrong cookie',
  'another size',
] as const;
type NbdFault = (typeof NBD_FAULTS)[number];
const ERRORS: Readonly<Record<string, number>> = { EIO: 5, EINVAL: 22, ESHUTDOWN: 108 };
const ERR_UNKNOWN = 0x8000_0006;
const REPLY_ERROR = 0x8001;
const GO = 7;

test.concurrent('a real NBD server that has every fault', async ({ onTestFinished }) => {
  const random = seededRandom(SEED + 1);
  const weather = new Weather(systemClock, random.fork(), NBD_FAULTS, { scale: SCALE });
  const server = await TestNbdServer.start(new Uint8Array(1));
  onTestFinished(() => server.stop());
  const publish: SoakOptions<NbdFault>['publish'] = (bytes, copy) => {
    const other = new Uint8Array(bytes.length + 512);
    /** Shows the image of the weather. A connection that has seen another one must end. */
    const show = (fault: NbdFault | undefined): void => {
      const content = fault === 'another size' ? other : bytes;
      if (server.content === content) return;
      server.content = content;
      server.hangUp();
    };
    show(undefined);
    server.options = {
      onOption: (option) => {
        if (option !== GO) return undefined;
        const fault = weather.meet();
        show(fault);
        if (fault === 'hangs up at once') server.hangUp();
        return fault === 'no such export' ? optionReply(option, ERR_UNKNOWN) : undefined;
      },
      behaviour: (ask) => {
        const fault = weather.meet();
        show(fault);
        greet(fault);
        void reply(fault, ask);
      },
    };
    /** Faults of new connections. */
    const greet = (fault: NbdFault | undefined): void => {
      const { greet: _, ...usual } = server.options;
      if (fault !== 'no greeting' && fault !== 'other protocol') return;
      server.options = {
        ...usual,
        greet: (socket) => {
          const now = weather.meet();
          if (now === 'other protocol') socket.end('SSH-2.0-server\r\n');
          else if (now === 'no greeting') return;
          else {
            server.options = usual;
            socket.destroy();
          }
        },
      };
      server.hangUp();
    };
    const reply = async (fault: NbdFault | undefined, ask: NbdAsk): Promise<void> => {
      const { socket, cookie, length } = ask;
      await systemClock.sleep(length / BYTES_PER_MS);
      if (fault === 'hangs up' || fault === 'hangs up at once') socket.destroy();
      else if (fault === 'silence') return;
      else if (fault === 'cut reply') {
        socket.write(chunk(cookie, 1, Buffer.alloc(9), { length: 8 + length }));
        socket.end();
      } else if (fault === 'drip') socket.write(chunk(cookie, 1, Buffer.alloc(9), { length: 8 + length }));
      else if (fault === 'wrong cookie') socket.write(chunk(cookie + 1000n, 1, Buffer.alloc(8 + length)));
      else if (fault !== undefined && fault in ERRORS)
        socket.write(chunk(cookie, REPLY_ERROR, Buffer.concat([u32(ERRORS[fault]!), u16(0)])));
      else ask.send();
    };
    const identity = `v${copy}`;
    const open = () => nbdSource(server.uri, { identity, stallTimeoutMs: STALL_MS, retry: RETRY });
    return { identity, open };
  };
  const fileSystem = new CrashingFileSystem();
  await reported('a real NBD server', soak({ ...common, random, weather, fileSystem, isTold: () => true, publish }));
});
