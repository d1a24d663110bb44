/** Parents of a server that do what systemd does: they receive its messages, and hold its sockets. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import { MAIN } from '../cli/command.ts';

/** Debian's Python: Node can neither receive datagrams on a unix socket nor pass descriptors on by number. */
export const PYTHON = '/usr/bin/python3';

const RECEIVER = `
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print(json.dumps('bound'))
while True:
  print(json.dumps(s.recv(65536).decode()))
`;

/** Each argument is an address: a path, or a port of 127.0.0.1. Each line on stdin starts the server anew. */
const HOLDER = `
import os, socket, subprocess, sys
held = []
for address in sys.argv[3].split(','):
  s = socket.socket(socket.AF_UNIX if '/' in address else socket.AF_INET)
  s.bind(address if '/' in address else ('127.0.0.1', int(address)))
  s.listen(8)
  held.append(s)
print('held', ','.join(str(s.getsockname()[1]) for s in held if s.family == socket.AF_INET))
def adopt():
  fds = [os.dup2(os.dup(s.fileno()), 100 + i) for i, s in enumerate(held)]
  for i, fd in enumerate(fds): os.dup2(fd, 3 + i, inheritable=True)
  os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))
for line in sys.stdin:
  p = os.fork()
  if p == 0:
    adopt()
    os.execv(sys.argv[1], [sys.argv[1], sys.argv[2], *sys.argv[4:]])
  print('started', p)
  print('ended', os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]))
`;

interface Lines {
  readonly child: ChildProcess;
  readonly lines: readonly string[];
  /** Resolves to the first line, from now or before, that matches. */
  seen(pattern: RegExp, from?: number): Promise<string>;
}

function startPython(script: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Lines {
  const child = spawn(PYTHON, ['-u', '-c', script, ...args], { stdio: ['pipe', 'pipe', 'inherit'], env });
  const lines: string[] = [];
  let onLine: () => void = () => undefined;
  createInterface(child.stdout).on('line', (line) => {
    lines.push(line);
    onLine();
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const seen = async (pattern: RegExp, from = 0): Promise<string> => {
    for (;;) {
      const found = lines.slice(from).find((line) => pattern.test(line));
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => (onLine = resolve));
    }
  };
  return { child, lines, seen };
}

/** Receives the messages of `NOTIFY_SOCKET` at `path`. */
export async function startManager(path: string): Promise<{ seen(pattern: RegExp): Promise<string>; all(): string[] }> {
  const { lines, seen } = startPython(RECEIVER, [path]);
  await seen(/bound/);
  return {
    seen: async (pattern) => JSON.parse(await seen(pattern)) as string,
    // `systemd-notify` asks after each message whether it was received.
    all: () =>
      lines
        .slice(1)
        .map((line) => JSON.parse(line) as string)
        .filter((message) => message !== 'BARRIER=1'),
  };
}

/** A parent that holds listening sockets, and starts the server as often as it is asked. */
export class SocketHolder {
  readonly #parent: Lines;
  /** The ports that were given as 0. */
  readonly ports: readonly number[];

  private constructor(parent: Lines, ports: readonly number[]) {
    this.#parent = parent;
    this.ports = ports;
  }

  /** @param addresses paths of unix sockets, or ports of 127.0.0.1 */
  static async start(
    addresses: readonly string[],
    args: readonly string[],
    env: NodeJS.ProcessEnv = process.env,
  ): Promise<SocketHolder> {
    const parent = startPython(HOLDER, [process.execPath, MAIN, addresses.join(','), ...args], env);
    const [, ports = ''] = (await parent.seen(/^held/)).split(' ');
    return new SocketHolder(parent, ports.split(',').filter(Boolean).map(Number));
  }

  /** Starts the server. Resolves when it listens. */
  async serve(): Promise<{ readonly pid: number; readonly uri: string; ended(): Promise<number> }> {
    const from = this.#parent.lines.length;
    this.#parent.child.stdin!.write('start\n');
    const pid = Number((await this.#parent.seen(/^started/, from)).split(' ')[1]);
    const uri = (await this.#parent.seen(/^listening on/, from)).slice('listening on '.length);
    onTestFinished(() => kill(pid));
    return { pid, uri, ended: async () => Number((await this.#parent.seen(/^ended/, from)).split(' ')[1]) };
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}
