/** The page as users get it: built, delivered by a static server, in Chromium, with images on another origin. */

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Page } from 'playwright';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { buildPage, type ImageServer, makeSampleDisk, serveImage } from '../support/built-page.ts';
import { expectBytes } from '../support/bytes.ts';
import { Chromium, pickFile } from '../support/chromium.ts';
import { contentsOf, imageTools } from '../support/disk-images.ts';
import { type Site, startSite } from '../support/site.ts';
import { describePage, describeWith } from '../support/tools.ts';

/** From the package grub-rescue-pc. */
const GRUB = '/usr/lib/grub-rescue/grub-rescue-floppy.img';
const BIOS = '/usr/share/seabios/bios.bin';
const WAIT = { timeout: 120_000 };

describePage(['chromium', ...imageTools], 'the page', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-page-'));
  const downloads = join(folder, 'downloads');
  const disk = join(folder, 'disk.img');
  const servers: ImageServer[] = [];
  const pages: Page[] = [];
  let errors: string[] = [];
  let chromium: Chromium;
  let site: Site;

  beforeAll(async () => {
    buildPage(join(folder, 'page'));
    makeSampleDisk(folder);
    mkdirSync(downloads);
    site = await startSite({ folders: { '/': join(folder, 'page') } });
    chromium = await Chromium.start(join(folder, 'profile'));
    const session = await chromium.browser.newBrowserCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: downloads });
  });

  afterEach(async () => {
    for (const page of pages.splice(0)) await page.close();
    for (const server of servers.splice(0)) await server.close();
    expect(errors.splice(0)).toEqual([]);
  });

  afterAll(async () => {
    await chromium?.close();
    await site?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  async function serve({
    path = disk,
    ...options
  }: { path?: string } & Parameters<typeof serveImage>[1] = {}): Promise<ImageServer> {
    const server = await serveImage(path, options);
    servers.push(server);
    return server;
  }

  async function openPage(path = '/'): Promise<Page> {
    const page = await chromium.browser.contexts()[0]!.newPage();
    pages.push(page);
    errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.goto(`${site.url}${path}`);
    return page;
  }

  async function begin(url: string): Promise<Page> {
    const page = await openPage();
    await page.fill('#image', url);
    await page.press('#image', 'Enter');
    await page.getByRole('button', { name: 'Start the copy' }).click(WAIT);
    await page.getByRole('tree').waitFor(WAIT);
    return page;
  }

  const shareOf = async (page: Page): Promise<number> =>
    Number.parseFloat((await page.locator('.share').textContent()) ?? '');
  const until = (page: Page, text: string): Promise<unknown> => page.getByText(text).first().waitFor(WAIT);

  async function downloaded(name: string): Promise<Uint8Array> {
    const path = join(downloads, name);
    await expect.poll(() => existsSync(path), WAIT).toBe(true);
    const bytes = readFileSync(path);
    rmSync(path);
    return bytes;
  }

  test('reads a file during the copy, resumes after a reload and downloads the complete image', async () => {
    const server = await serve();
    const page = await openPage();
    await page.fill('#image', server.url);
    await page.press('#image', 'Enter');
    await until(page, 'disk.raw');
    expect(await page.locator('.outcome').textContent()).toMatch(
      /disk\.raw · 40 MiBFree space in this browser: [\d.]+ [KMGT]iB/,
    );
    await page.getByRole('button', { name: 'Start the copy' }).click();
    await page.getByRole('button', { name: 'Pause' }).click(WAIT);

    await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until(page, 'Copying is fine.');
    await page.getByRole('treeitem', { name: 'big.bin' }).click();
    await page.getByRole('button', { name: 'Download', exact: true }).click(WAIT);
    expectBytes(await downloaded('big.bin'), contentsOf('big.bin'));
    const share = await shareOf(page);
    expect(share).toBeLessThan(80);
    expect(await page.getByRole('img', { name: /Map of the disk/ }).getAttribute('aria-label')).toMatch(
      /\d % of 40 MiB copied/,
    );
    expect(await page.getByRole('button', { name: 'Download the image' }).count()).toBe(0);

    await page.reload();
    await until(page, 'Paused');
    expect(await shareOf(page)).toBeGreaterThanOrEqual(share);
    server.release();
    await page.getByRole('button', { name: 'Resume' }).click();
    await until(page, 'The copy is complete');
    await page.getByRole('button', { name: 'Download the image' }).click();
    expectBytes(await downloaded('disk.raw'), readFileSync(disk));
  });

  test('shows the bytes at any offset, also by keyboard', async () => {
    const page = await begin((await serve()).url);
    await unfold(page);
    await page.fill('#hex-offset', '0x200');
    await page.press('#hex-offset', 'Enter');
    await page.locator('.bytes').getByText('EFI PART').waitFor(WAIT);
    await page.focus('.bytes');
    await page.keyboard.press('End');
    await page.locator('.bytes').getByText('027ffff0').waitFor(WAIT);
    await page.fill('#hex-offset', '1 TiB');
    await page.press('#hex-offset', 'Enter');
    await until(page, 'an offset below 40 MiB');

    // On the map, Enter shows the bytes of a square. Zooming in makes the squares smaller.
    await page.focus('.map canvas');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('+');
    await until(page, 'Whole disk');
    expect(await page.locator('.map .span').textContent()).toMatch(/ – .* · a square is/);
    await page.keyboard.press('Enter');
    await expect.poll(() => page.inputValue('#hex-offset'), WAIT).not.toBe('1 TiB');
    await page.getByText('The map as a table').click();
    await expect.poll(() => page.locator('.words tbody tr').count(), WAIT).toBe(16);

    // The arrow keys move in the tree.
    const boot = page.getByRole('treeitem', { name: '1 · boot' });
    await boot.focus();
    await page.keyboard.press('ArrowRight');
    await boot.getByRole('treeitem', { name: 'docs' }).waitFor(WAIT);
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowRight');
    await boot.getByRole('treeitem', { name: 'deeper' }).waitFor(WAIT);
    await page.keyboard.press('l');
    await page.keyboard.press('Enter');
    await until(page, 'So is reading.');
  });

  test('shows written bytes on the map, and keeps them after the tab closes and the copy completes', async () => {
    const server = await serve();
    const page = await begin(server.url);
    await page.getByRole('button', { name: 'Pause' }).click();
    await unfold(page);
    await page.fill('#hex-offset', '39 MiB');
    await page.press('#hex-offset', 'Enter');
    await expect.poll(() => page.inputValue('#hex-offset'), WAIT).toBe('0x02700000');
    await page.fill('#hex-values', 'no bytes');
    await page.press('#hex-values', 'Enter');
    await until(page, 'bytes such as 48 69');
    await page.fill('#hex-values', '"Kilroy was here"');
    await page.press('#hex-values', 'Enter');
    await until(page, '15 bytes written and flushed');
    const address = new URL(page.url()).hash;
    await pages.splice(pages.indexOf(page), 1)[0]!.close();

    server.release();
    const next = await openPage(`/${address}`);
    await next.getByRole('button', { name: 'Resume' }).click(WAIT);
    await until(next, 'The copy is complete');
    await next.getByRole('button', { name: 'Download the image' }).click();
    const expected = Uint8Array.from(readFileSync(disk));
    expected.set(new TextEncoder().encode('Kilroy was here'), 39 * 2 ** 20);
    expectBytes(await downloaded('disk.raw'), expected);
  });

  test('finds files by name and path, and saves a directory', async () => {
    const server = await serve();
    const page = await begin(server.url);
    await page.getByRole('button', { name: 'Pause' }).click();
    // Names are in the order of their numbers, with sizes and dates.
    await page.getByLabel('Find').fill('/many/file number 217.txt');
    await page.keyboard.press('Enter');
    await until(page, 'This is 217.');
    const names = page.locator('.tree bdi').filter({ hasText: 'file number' });
    expect((await names.allTextContents()).slice(8, 12)).toEqual(
      ['8', '9', '10', '11'].map((number) => `file number ${number}.txt`),
    );
    expect(await page.getByRole('treeitem', { name: 'file number 217.txt' }).last().textContent()).toMatch(
      /13 bytes · 20\d\d-\d\d-\d\d$/,
    );
    await page.getByLabel('Find').fill('/etc/fstab');
    await page.keyboard.press('Enter');
    await until(page, 'there is no “etc” in /');

    await page.getByLabel('Find').fill('NOTE');
    await until(page, 'none found in what was opened');
    await page.keyboard.press('Enter');
    await until(page, '2 found; ');
    await page.getByRole('treeitem', { name: 'note.md' }).last().click();
    await until(page, 'This is note.md.');
    await page.getByLabel('Find').fill('');
    expect(await names.count()).toBeGreaterThan(0);

    const row = page.locator('.tree .row', { has: page.locator('bdi', { hasText: /^docs$/ }) });
    await row.last().click();
    await page.getByRole('button', { name: 'Download as .zip' }).click();
    const archive = Buffer.from(await downloaded('docs.zip')).toString('latin1');
    expect(archive).toContain('deeper/note.md');
    expect(archive).toContain('This is note.md.');
    await until(page, 'docs.zip: 1 file, 17 bytes.');
  });

  test('puts a file into a volume, and keeps it across a reload', async () => {
    const path = join(folder, 'fat');
    const page = await begin((await serve({ path })).url);
    await page.getByRole('treeitem', { name: 'The whole disk' }).waitFor(WAIT);
    await page.getByRole('treeitem', { name: 'docs' }).click(WAIT);
    const put = (text: string): Promise<void> =>
      page.locator('.folder input[type=file]').setInputFiles({
        name: 'A new file.txt',
        mimeType: 'text/plain',
        buffer: Buffer.from(text),
      });
    // A PC in another tab holds this lock while it runs.
    await page.evaluate(`navigator.locks.request(
      'copyondemand volumes ' + location.hash.slice(6),
      () => new Promise((resolve) => { globalThis.release = resolve; }),
    ) && undefined`);
    await put('Put in by the page.');
    await until(page, 'A PC or a page in another tab writes to this disk');
    if (existsSync(BIOS)) {
      await page.getByRole('button', { name: 'Start the PC' }).click();
      // The volume has no boot code.
      await page.getByRole('button', { name: 'Start anyway' }).click(WAIT);
      await until(page, 'A file is being put into this disk: start the PC when it is there.');
    }
    await page.evaluate('release()');
    await put('Put in by the page.');
    await until(page, 'A new file.txt (19 bytes) is in the volume and flushed.');
    await page.getByRole('treeitem', { name: 'A new file.txt' }).last().waitFor(WAIT);
    await put('Replaced by the page.');
    await page.getByRole('button', { name: 'Replace it' }).click(WAIT);
    await until(page, 'A new file.txt (21 bytes) is in the volume and flushed.');

    const drop = (where: string, name: string): Promise<unknown> =>
      page.evaluate(`{
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(['Dropped.'], '${name}'));
        document.querySelector('${where}').dispatchEvent(
          new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }),
        );
      }`);
    await drop('.folder', 'dropped into the folder.txt');
    await until(page, 'dropped into the folder.txt (8 bytes) is in the volume and flushed.');
    await page
      .getByRole('treeitem', { name: 'docs' })
      .first()
      .locator('.row')
      .first()
      .evaluate((row) => row.classList.add('target'));
    await drop('.target', 'dropped on the tree.txt');
    await until(page, 'dropped on the tree.txt (8 bytes) is in the volume and flushed.');

    await page.reload();
    await page.getByLabel('Find').fill('/docs/a new file.txt', WAIT);
    await page.keyboard.press('Enter');
    await until(page, 'Replaced by the page.');
    await until(page, 'The copy is complete');
    await page.getByRole('button', { name: 'Download the image' }).click();
    const image = join(folder, 'with a new file');
    writeFileSync(image, await downloaded('disk.raw'));
    expect(execFileSync('fsck.fat', ['-n', image], { encoding: 'utf8' })).toMatch(/\d+ files/);
    expect(execFileSync('mcopy', ['-i', image, '::docs/A new file.txt', '-'], { encoding: 'utf8' })).toBe(
      'Replaced by the page.',
    );
    for (const name of ['dropped into the folder.txt', 'dropped on the tree.txt'])
      expect(execFileSync('mcopy', ['-i', image, `::docs/${name}`, '-'], { encoding: 'utf8' })).toBe('Dropped.');
  });

  test('two tabs share one copy, and the second continues it when the first is closed', async () => {
    const server = await serve();
    const first = await begin(server.url);
    await first.getByRole('button', { name: 'Pause' }).click();
    const second = await openPage(new URL(first.url()).hash.replace(/^/, '/'));
    await until(second, 'another tab runs the copy');
    await second.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until(second, 'Copying is fine.');
    await pages.splice(pages.indexOf(first), 1)[0]!.close();
    await expect.poll(() => second.locator('.badge').textContent(), WAIT).toBe('');
    server.release();
    await second.getByRole('button', { name: /Resume/ }).click(WAIT);
    await until(second, 'The copy is complete');
  });

  describeWith(['qemu-img'], 'a qcow2 image', () => {
    test.each(['zstd', 'zlib'])('with %s is copied as its disk', async (compression) => {
      const path = join(folder, `${compression}.qcow2`);
      const options = ['-c', '-o', `compression_type=${compression}`];
      execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...options, disk, path]);
      const server = await serve({ path });
      const page = await openPage();
      await page.fill('#image', server.url);
      await page.press('#image', 'Enter');
      await until(page, '40 MiB');
      await page.getByRole('button', { name: 'Start the copy' }).click();
      await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
      await until(page, 'Copying is fine.');
      server.release();
      await until(page, 'The copy is complete');
      await page.getByRole('button', { name: 'Download the image' }).click();
      expectBytes(await downloaded('disk.raw'), readFileSync(disk));
      expect(server.sentBytes).toBeLessThan(20 * 2 ** 20);
    });

    test('is opened from this computer', async () => {
      const path = join(folder, 'picked.qcow2');
      execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', disk, path]);
      const page = await openPage();
      await pickFile(page, path);
      await until(page, 'picked.qcow2 · 40 MiB');
      await page.getByRole('button', { name: 'Start the copy' }).click();
      await until(page, 'The copy is complete');
      await page.getByRole('button', { name: 'Download the image' }).click();
      expectBytes(await downloaded('picked.raw'), readFileSync(disk));
    });

    test('cannot be read without the file that reads it, and the page says so', async () => {
      const path = join(folder, 'alone.qcow2');
      execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', disk, path]);
      const partial = join(folder, 'page-without-qcow2');
      cpSync(join(folder, 'page'), partial, { recursive: true });
      rmSync(join(partial, 'browser-qcow2.js'));
      const other = await startSite({ folders: { '/': partial } });
      const page = await openPage();
      await page.goto(`${other.url}/?image=${encodeURIComponent((await serve({ path })).url)}`);
      await until(page, 'serve browser-qcow2.js beside browser-worker.js');
      await page.close();
      await other.close();
    });

    test('that needs another file is refused at the offer', async () => {
      const path = join(folder, 'overlay.qcow2');
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', disk, '-F', 'raw', path]);
      const page = await openPage(`/?image=${encodeURIComponent((await serve({ path })).url)}`);
      await until(page, 'The image cannot be read here');
      expect(await page.locator('.outcome').textContent()).toMatch(/needs a backing file, .*disk\.img/);
    });
  });

  test.each([
    ['disk.img.gz', gzipSync('x'.repeat(9000)), 'It is compressed with gzip: unpack it with `gunzip`.'],
    ['login', Buffer.from('<!doctype html><title>Log in</title>'), 'It is an HTML page: check the address'],
  ] as const)('refuses %s at the offer, and says what to do', async (name, bytes, remedy) => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    const page = await openPage(`/?image=${encodeURIComponent((await serve({ path })).url)}`);
    await until(page, 'The file is not a disk');
    expect(await page.locator('.outcome').textContent()).toContain(remedy);
    await pickFile(page, path);
    await until(page, 'The file is not a disk');
  });

  test('explains a server without CORS headers', async () => {
    const { url } = await serve({ headers: {} });
    const page = await openPage(`/?image=${encodeURIComponent(url)}`);
    await until(page, 'The server does not allow this page to read the image');
    expect(await page.locator('.outcome').textContent()).toMatch(
      /Access-Control-Allow-Origin: http:\/\/127\.0\.0\.1:\d+.*drop the file here/s,
    );
  });

  test('stops the copy when the source changes, and can start a new copy', async () => {
    let etag = '"one"';
    const server = await serve({ etag: () => etag });
    const page = await begin(server.url);
    await page.getByRole('button', { name: 'Pause' }).click();
    etag = '"two"';
    await page.reload();
    await until(page, 'The image has changed at its source');
    server.release();
    await page.getByRole('button', { name: 'Start over' }).click();
    await page.getByRole('button', { name: 'Really start over?' }).click();
    await until(page, 'The copy is complete');
  });

  test.each([
    ['runs', { rests: false }],
    ['is paused', { rests: true }],
  ] as const)(
    'detects a changed source while the copy %s, keeps the copied data, and resumes with the old version',
    async (_, { rests }) => {
      let etag = '"one"';
      const server = await serve({ etag: () => etag, bytesPerSecond: 2 ** 20 });
      const page = await begin(server.url);
      await unfold(page);
      const goTo = async (offset: string, shown: string): Promise<void> => {
        await page.fill('#hex-offset', offset);
        await page.press('#hex-offset', 'Enter');
        await page.locator('.bytes').getByText(shown).waitFor(WAIT);
      };
      const write = async (text: string): Promise<void> => {
        await page.fill('#hex-values', `"${text}"`);
        await page.press('#hex-values', 'Enter');
        await until(page, `${text.length} bytes written and flushed`);
      };
      /** Checks that the server sends nothing more, although the copy is far from complete. */
      const expectQuiet = async (): Promise<void> => {
        const sentSoon = async (): Promise<number> => {
          const { sentBytes } = server;
          await new Promise((resolve) => setTimeout(resolve, 500));
          return server.sentBytes - sentBytes;
        };
        await expect.poll(sentSoon, WAIT).toBe(0);
        expect(server.sentBytes).toBeLessThan(30 * 2 ** 20);
      };
      if (rests) {
        await page.getByRole('button', { name: 'Pause' }).click();
        await expectQuiet();
      }
      await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
      await until(page, 'Copying is fine.');
      await goTo('39 MiB', '02700000');
      await write('Kilroy was here');

      etag = '"two"';
      await page.getByRole('treeitem', { name: 'big.bin' }).click();
      await page.getByRole('alert').getByText('The image has changed at its source').waitFor(WAIT);
      await page.getByRole('region', { name: 'File' }).getByText('The image has changed at its source').waitFor(WAIT);
      await until(page, 'copied · Stopped');
      await expectQuiet();
      const button = page.getByRole('button', { name: rests ? 'Resume' : 'Pause' });
      await expect.poll(() => button.isDisabled(), WAIT).toBe(true);
      await goTo('0x200', 'EFI PART');
      await goTo('39 MiB', 'Kilroy was here');
      await write('So was I, later');
      await page.getByRole('treeitem', { name: 'licence.txt' }).click();
      await until(page, 'Copying is fine.');

      etag = '"one"';
      server.release();
      await page.getByRole('button', { name: 'Try again' }).click();
      if (rests) await page.getByRole('button', { name: 'Resume' }).click(WAIT);
      await until(page, 'The copy is complete');
      await page.getByRole('button', { name: 'Download the image' }).click();
      const expected = Uint8Array.from(readFileSync(disk));
      expected.set(new TextEncoder().encode('So was I, later'), 39 * 2 ** 20);
      expectBytes(await downloaded('disk.raw'), expected);
    },
  );

  test('warns about an image larger than the quota before the copy, and reports it after', async () => {
    const { url } = await serve({ size: 16 * 2 ** 40 });
    const page = await openPage();
    await page.fill('#image', url);
    await page.press('#image', 'Enter');
    await until(page, 'will probably not fit');
    await page.getByRole('button', { name: 'Start the copy' }).click();
    await until(page, 'There is not enough space in this browser');
  });

  test('looks into an image that is not kept, with writes in memory', async () => {
    const server = await serve();
    const page = await openPage();
    await page.fill('#image', server.url);
    await page.press('#image', 'Enter');
    await page.getByRole('button', { name: 'Look without a copy' }).click(WAIT);
    await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until(page, 'Copying is fine.');
    await unfold(page);
    await page.fill('#hex-offset', '39 MiB');
    await page.press('#hex-offset', 'Enter');
    await page.locator('.bytes').getByText('02700000').waitFor(WAIT);
    await page.fill('#hex-values', '"Kilroy was here"');
    await page.press('#hex-values', 'Enter');
    await page.locator('.bytes').getByText('Kilroy was here').waitFor(WAIT);
    expect(await page.locator('.share').textContent()).toBe('Look only');
    expect(server.sentBytes).toBeLessThan(4 * 2 ** 20);
    await page.getByRole('button', { name: 'All images' }).click();
    await until(page, 'Address of a disk image');
    expect(await page.evaluate('JSON.stringify(localStorage)')).not.toContain(server.url);
  });

  test('a copy that exceeded its quota can be retried when there is room', async () => {
    const page = await openPage();
    const session = await page.context().newCDPSession(page);
    const { usage } = await session.send('Storage.getUsageAndQuota', { origin: site.url });
    await session.send('Storage.overrideQuotaForOrigin', { origin: site.url, quotaSize: usage + 2 ** 20 });
    await page.fill('#image', (await serve()).url);
    await page.press('#image', 'Enter');
    await page.getByRole('button', { name: 'Start the copy' }).click(WAIT);
    await until(page, 'There is not enough space in this browser');
    await session.send('Storage.overrideQuotaForOrigin', { origin: site.url });
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByRole('tree').waitFor(WAIT);
  });

  test('copies a picked file, asks for the file again after a reload, and forgets it', async () => {
    const page = await openPage();
    await pickFile(page, join(folder, 'fat'));
    await page.getByRole('button', { name: 'Start the copy' }).click(WAIT);
    await until(page, 'The copy is complete');
    await page.reload();
    await until(page, 'pick it again');
    await pickFile(page, join(folder, 'fat'));
    await page.getByRole('button', { name: /^Continue \(/ }).click(WAIT);
    await until(page, 'The copy is complete');
    await page.getByRole('treeitem', { name: 'The whole disk' }).waitFor(WAIT);
    await page.getByRole('button', { name: 'Remove …' }).click();
    await page.getByRole('button', { name: 'Remove it' }).click();
    await until(page, 'Address of a disk image');
    expect(await page.getByRole('button', { name: 'Resume fat' }).count()).toBe(0);
    expect(await page.evaluate(namesOfCopies)).not.toContain('fat');
  });

  test.skipIf(!existsSync(GRUB) || !existsSync(BIOS))('boots an image during its copy', async () => {
    const server = await serve({ path: GRUB, bytesPerSecond: 2 ** 17 });
    const page = await begin(server.url);
    await page.getByRole('button', { name: 'Pause' }).click();
    server.release();
    await page.getByRole('button', { name: 'Start the PC' }).click();
    await until(page, 'GNU GRUB');
    await page.getByRole('button', { name: 'Switch off' }).click();
    await until(page, 'The PC is off.');
  });

  test.skipIf(!existsSync(BIOS))('keeps the writes of a booted image across a reload', async () => {
    const image = new Uint8Array(2 ** 20);
    // A boot sector that writes itself to the third sector through the BIOS, and then shows "W#".
    const code = [0x31, 0xdb, 0x8e, 0xc3, 0xbb, 0, 0x7c, 0xb8, 1, 3, 0xb9, 3, 0, 0xba, 0x80, 0, 0xcd, 0x13];
    for (const character of 'W#') code.push(0xb8, character.charCodeAt(0), 0x0e, 0xcd, 0x10);
    image.set([...code, 0xf4, 0xeb, 0xfd]);
    image.set([0x55, 0xaa], 510);
    const path = join(folder, 'writer.img');
    writeFileSync(path, image);
    const page = await begin((await serve({ path })).url);
    await page.getByRole('button', { name: 'Start the PC' }).click();
    await page.locator('.screen').getByText('W#').waitFor(WAIT);
    await page.reload();
    await until(page, 'The copy is complete');
    await page.getByRole('button', { name: 'Download the image' }).click();
    const expected = image.slice();
    expected.copyWithin(1024, 0, 512);
    expectBytes(await downloaded('disk.raw'), expected);
  });

  test('fits a phone in light and dark mode, and every control has a name', async () => {
    const page = await begin((await serve()).url);
    await page.getByRole('treeitem', { name: 'big.bin' }).click(WAIT);
    await page.getByRole('button', { name: 'Show bytes' }).waitFor(WAIT);
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      for (const width of [360, 800, 1600]) {
        await page.setViewportSize({ width, height: 800 });
        expect(
          await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth'),
        ).toBeLessThanOrEqual(0);
      }
      expect(await page.evaluate("getComputedStyle(document.body).backgroundColor === 'rgb(16, 20, 19)'")).toBe(
        colorScheme === 'dark',
      );
    }
    const nameless = `[...document.querySelectorAll('button, input, select, canvas')].filter(
      (e) => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel && e.ariaHidden !== 'true',
    ).length`;
    expect(await page.evaluate(nameless)).toBe(0);
  });
});

/** Opens the views that are closed at first. */
const unfold = (page: Page): Promise<unknown> =>
  page.evaluate("document.querySelectorAll('details.folded').forEach((view) => (view.open = true))");

/** The names of the copies that the page stores; runs in the page. */
const namesOfCopies = 'Object.values(localStorage).map((text) => JSON.parse(text).name)';
