/** `serve --metrics` while a disk is used, and the example of alert rules. promtool checks both. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { nbdSource } from '../../src/nbd.ts';
import { startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { serveFile } from '../support/range-server.ts';
import { describeWith, toolPath } from '../support/tools.ts';

const rules = fileURLToPath(new URL('../../examples/prometheus/alerts.yml', import.meta.url));

async function promtool(args: readonly string[], input = ''): Promise<void> {
  const child = spawn(toolPath('promtool')!, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const [stdout, stderr, [exitCode]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
    child.stdin.end(input),
  ]);
  expect({ exitCode, stderr }, stdout).toEqual({ exitCode: 0, stderr: '' });
}

/** Serves an image of 1 MiB without a background copy. Resolves to the address of the metrics. */
async function serve(source: string, ...flags: readonly string[]) {
  const directory = temporaryDirectory();
  const [target, socket] = [join(directory, 'disk'), join(directory, 's')];
  const args = ['serve', source, target, '--socket', socket, '--metrics', '0', '--no-hydrate', '--json', ...flags];
  let url = '';
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const running = startCommand(args, {
    onLine: (line) => {
      const event = JSON.parse(line) as { event: string; url: string };
      if (event.event === 'metrics') url = event.url;
      if (event.event === 'listening') listening();
    },
  });
  onTestFinished(() => void running.child.kill('SIGKILL'));
  await Promise.race([ready, running.result]);
  return { url, target, running, uri: `nbd+unix:///?socket=${socket}` };
}

async function scrape(url: string): Promise<string> {
  const response = await fetch(url);
  expect(response.status).toBe(200);
  return response.text();
}

describeWith(['promtool'], 'metrics', () => {
  test('of a disk in use are valid, and tell what clients do', async () => {
    const directory = temporaryDirectory();
    const image = join(directory, 'image');
    writeFileSync(image, new Uint8Array(2 ** 20).fill(7));
    const { url, uri, target, running } = await serve(image);
    await promtool(['check', 'metrics'], await scrape(url));
    const client = await nbdSource(uri);
    await client.read(new Uint8Array(8192), 4096);
    const found = await scrape(url);
    await promtool(['check', 'metrics'], found);
    for (const line of [
      `copyondemand_size_bytes{target="${target}"} 1048576`,
      `copyondemand_synced_blocks{target="${target}"} `,
      `copyondemand_source_bytes_total{target="${target}",kind="demand"} 8192`,
      `copyondemand_source_request_duration_seconds_count{target="${target}",kind="demand"} 1`,
      `copyondemand_export_info{export="",target="${target}",source="${image}"} 1`,
      'copyondemand_nbd_clients{export=""} 1',
      'copyondemand_nbd_command_duration_seconds_count{export="",command="read"} 1',
      'copyondemand_nbd_bytes_total{export="",command="read"} 8192',
      `copyondemand_owner{metadata="${target}"} 1`,
      'nodejs_eventloop_lag_p99_seconds ',
      'process_resident_memory_bytes ',
    ])
      expect(found).toContain(`\n${line}`);
    // The bytes are stored by now, or soon. What is stored is read from the target.
    const calls = async (call: string) =>
      Number(new RegExp(`target_call_duration_seconds_count\\{.*call="${call}"\\} (.*)`).exec(await scrape(url))![1]);
    while ((await calls('write')) === 0) await new Promise(setImmediate);
    while (!(await scrape(url)).includes(`\ncopyondemand_synced_blocks{target="${target}"} 2\n`))
      await new Promise(setImmediate);
    const before = await calls('read');
    await client.read(new Uint8Array(4096), 4096);
    expect(await calls('read')).toBe(before + 1);
    expect(await scrape(url)).toContain(`\ncopyondemand_target_bytes_total{target="${target}",call="write"} 8192\n`);
    expect(Number(/owner_heartbeat_age_seconds\{.*\} (.*)/.exec(found)![1])).toBeGreaterThanOrEqual(0);
    await client.close();
    running.child.kill('SIGTERM');
    expect(await running.result).toMatchObject({ exitCode: 0, stderr: '' });
  });

  test('count the errors of a source, and hold no secret of its URL', async () => {
    const image = join(temporaryDirectory(), 'image');
    writeFileSync(image, new Uint8Array(2 ** 20).fill(7));
    const server = await serveFile(image);
    const source = `${server.url.replace('http://', 'http://tom:geheim@')}?signature=geheim`;
    const { url, uri } = await serve(source, '--timeout', '1', '--retries', '0');
    const client = await nbdSource(uri, { retry: { attempts: 1 } });
    await server.close();
    await expect(client.read(new Uint8Array(512), 0)).rejects.toThrow();
    const found = await scrape(url);
    await promtool(['check', 'metrics'], found);
    expect(found).toMatch(/copyondemand_errors_total\{target=".*",code="COD_SOURCE_IO"\} [1-9]/);
    expect(found).toMatch(/copyondemand_source_request_failures_total\{target=".*",kind="demand"\} [1-9]/);
    expect(found).toContain('copyondemand_nbd_errors_total{export="",command="read",error="EIO"} 1\n');
    expect(found).toMatch(/copyondemand_export_info\{.*source="http:/);
    expect(found).not.toContain('geheim');
    await client.close();
  });

  test('the example of alert rules is valid', () => promtool(['check', 'rules', rules]));
});
