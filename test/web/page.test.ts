/** The page in Chromium, before made-up hosts. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { type Browser, chromium, type Page } from 'playwright-core';
import { LivesnapError } from '../../src/errors.js';
import { projectRoot } from '../../src/native/project-root.js';
import type { Overview } from '../../src/server/schemas.js';
import { FakeServer, type Queries } from './fake-host.js';
import { busyHost, EMPTY, idOf, job, machine, queriesOf } from './made-up.js';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(
  existsSync,
);
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
/** Pictures are kept if this names a directory. */
const PICTURES = process.env.LIVESNAP_TEST_PICTURES;
const FIRST_SCREEN_BYTES = 60_000;

describe('the page of the server', function () {
  this.timeout(60_000);
  let browser: Browser;
  let server: FakeServer;
  const problems: string[] = [];

  before(async function () {
    if (CHROMIUM === undefined) {
      console.log('    skipped: there is no Chromium; on Debian: apt install chromium');
      this.skip();
    }
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] });
    if (PICTURES !== undefined) mkdirSync(PICTURES, { recursive: true });
  });
  after(() => browser?.close());
  beforeEach(() => {
    problems.length = 0;
  });
  afterEach(async () => {
    for (const context of browser.contexts()) await context.close();
    await server?.close();
    assert.deepEqual(problems, []);
  });

  interface Screen {
    readonly width?: number;
    readonly height?: number;
    readonly scheme?: 'dark' | 'light';
    /** Answers of the store that differ. */
    readonly queries?: Queries;
  }

  async function open(
    overview: Overview,
    { width = 1280, height = 800, scheme = 'dark', queries = {} }: Screen = {},
    fragment = '',
  ): Promise<Page> {
    server = await FakeServer.start(overview, { ...queriesOf(overview), ...queries });
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    const page = await context.newPage();
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error' && !/40[134]|ERR_(CONNECTION|INCOMPLETE|EMPTY)/.test(message.text()))
        problems.push(message.text());
    });
    await page.goto(server.signInUrl);
    await page.getByText('● live').waitFor();
    if (fragment !== '') {
      await page.evaluate(`location.hash = ${JSON.stringify(fragment)}`);
    }
    return page;
  }

  async function picture(page: Page, name: string): Promise<void> {
    if (PICTURES !== undefined) await page.screenshot({ path: join(PICTURES, `${name}.png`) });
  }

  /** Not `page.waitForFunction`, which the page's policy refuses when it looks a second time. */
  async function until(page: Page, expression: string): Promise<void> {
    while (!(await page.evaluate<boolean>(expression))) await sleep(20);
  }

  async function requested(what: RegExp): Promise<void> {
    while (!server.requests.some((each) => what.test(each))) await sleep(20);
  }

  async function requireAccessible(page: Page, what: string): Promise<void> {
    await page.evaluate(readFileSync(AXE, 'utf8'));
    const found = await page.evaluate<unknown>('axe.run().then(({ violations }) => violations)');
    const told = (found as { id: string; nodes: { html: string }[] }[]).map(
      ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`,
    );
    assert.deepEqual(told, [], what);
  }

  it('has a first screen of 60 kB at most, compressed', () => {
    const web = join(projectRoot, 'dist/web');
    const html = readFileSync(join(web, 'index.html'), 'utf8');
    const first = [...html.matchAll(/"(\/app\/[^"]+)"/g)].map(([, path]) => join(web, path!));
    const text = first.map((file) => readFileSync(file));
    // What a script imports at once is first, too.
    for (const script of text)
      for (const [, name] of script.toString('latin1').matchAll(/from"\.\/([\w.-]+\.js)"/g))
        text.push(readFileSync(join(web, 'app', name!)));
    const bytes = [Buffer.from(html), ...text].reduce((sum, each) => sum + gzipSync(each).length, 0);
    assert(first.length === 2 && bytes < FIRST_SCREEN_BYTES, `${bytes} bytes`);
    assert(readdirSync(join(web, 'app')).some((name) => name.startsWith('terminal-')));
  });

  it('tells what runs, what it costs and what is wrong, with one request', async () => {
    const page = await open(busyHost());
    const text = await page.locator('body').innerText();
    for (const part of [
      /host-3 · KVM/,
      /RUNNING\s*5 · /i,
      /500 snapshots · 125 GiB in 3.4 GiB · 37.0 : 1/,
      /120 MiB reclaimable/,
    ])
      assert.match(text, part);
    assert.match(
      text,
      /<img src=x onerror=alert\(1\)> failed 3 minutes ago: triple fault at 0xffff<b>/,
      'as text',
    );
    assert.match(text, /copy backup failed: backup did not answer/);
    assert.match(text, /saving 70%/);
    assert.match(text, /41% of the stored data is not verified/);
    const api = server.requests.filter((each) => each.includes('/v1/'));
    assert.deepEqual(api, ['POST /v1/sessions', 'GET /v1/events']);
    assert(!(await page.url()).includes('code='), 'the code is not in the address');
    await requireAccessible(page, 'the overview');
    await picture(page, 'overview-dark');
  });

  it('is light where the system is, and fits a phone and a large screen', async () => {
    const page = await open(busyHost(), { scheme: 'light' });
    await requireAccessible(page, 'light');
    await picture(page, 'overview-light');
    for (const [width, height, name] of [
      [360, 740, 'phone'],
      [3840, 2160, 'large'],
    ] as const) {
      await page.setViewportSize({ width, height });
      const overflow = await page.evaluate<number>('document.documentElement.scrollWidth - innerWidth');
      await picture(page, name);
      assert(overflow <= 0, `${name}: ${overflow} px too wide`);
      await picture(page, name);
    }
  });

  it('follows events, and measures processors', async () => {
    const overview = busyHost(30);
    const page = await open(overview);
    server.tell('machine-started', { machine: machine('new-one', 70) });
    await page.getByRole('link', { name: 'new-one', exact: true }).waitFor();
    for (const cpuSeconds of [10, 11.5, 12.5]) {
      server.tell('usage', {
        [idOf(9001)]: { cpuSeconds, touchedBytes: 300 * 2 ** 20, dirtyBytes: 5 * 2 ** 20 },
      });
      await page.waitForTimeout(1100);
    }
    await page.locator('.machine', { hasText: '300 MiB' }).getByText(/\d%/).first().waitFor();
    server.tell('machine-ended', { machine: machine('new-one', 70) });
    await page.getByRole('link', { name: 'new-one', exact: true }).waitFor({ state: 'detached' });
    server.tell('job', { job: job({ kind: 'gc', progress: { doneBytes: 1, totalBytes: 4 } }) });
    await page.getByText('25%').waitFor();
  });

  it('shows how much a machine has changed since its last save', async () => {
    const page = await open(busyHost(30), {}, `#/machines/${idOf(9003)}`);
    await page.getByText('from db-base · 3 MiB changed since').waitFor();
    const { machines } = busyHost(30);
    const db = machines.find(({ id }) => id === idOf(9003))!;
    server.tell('usage', { [idOf(9003)]: { cpuSeconds: 11, touchedBytes: 1, dirtyBytes: 7 * 2 ** 20 } });
    await page.getByText('7 MiB changed since').waitFor();
    server.tell('machine-changed', { machine: { ...db, snapshot: idOf(99_999), dirtyBytes: 4096 } });
    await page.getByText('never saved', { exact: true }).waitFor();
  });

  it('has a choice of store if there are several, and asks the one that it shows', async () => {
    const one = await open(busyHost(30));
    assert.equal(await one.locator('.stores').count(), 0);
    await one.getByText('store /var/lib/livesnap').waitFor();
    await server.close();
    const host = busyHost(30);
    const page = await open({ ...host, host: { ...host.host, stores: ['main', 'archive'] } });
    const choice = page.getByRole('combobox', { name: 'store', exact: true });
    assert.equal(await choice.inputValue(), 'main');
    await page.getByRole('button', { name: 'Save web', exact: true }).first().click();
    await requested(/^POST \/v1\/machines\/[0-9a-f]+\/save\?store=main$/);
    await picture(page, 'stores');
    await choice.selectOption('archive');
    await requested(/^GET \/v1\/events\?store=archive$/);
    await page.getByText('● live').waitFor();
    assert.equal(await choice.inputValue(), 'archive');
    await page.getByText('not saved in archive').first().waitFor();
    await page.getByRole('button', { name: 'Save web', exact: true }).first().click();
    await requested(/^POST \/v1\/machines\/[0-9a-f]+\/save\?store=archive$/);
    await requireAccessible(page, 'a choice of store');
    await page.setViewportSize({ width: 360, height: 640 });
    const overflow = await page.evaluate<number>('document.documentElement.scrollWidth - innerWidth');
    await picture(page, 'stores-narrow');
    assert(overflow <= 0, `${overflow} px too wide`);
    await choice.selectOption('main');
    await page.getByText('not saved in archive').first().waitFor({ state: 'detached' });
  });

  it('folds untagged snapshots, filters, and has few rows in the document', async () => {
    const page = await open(busyHost());
    const list = page.getByRole('list', { name: 'Snapshots', exact: true });
    await list
      .getByText(/^\d+ untagged/)
      .first()
      .waitFor();
    await list
      .getByText(/^\d+ untagged/)
      .first()
      .click();
    assert((await list.locator('li').count()) < 90, 'rows that are not on the screen are not there');
    await page.keyboard.press('/');
    await page.keyboard.type('nightly-1');
    await until(page, "document.querySelectorAll('.snap .tag').length <= 3");
    assert((await list.locator('li').count()) <= 3);
    await page.getByLabel('Filter Snapshots').fill('no such thing');
    await page.getByText('No snapshot matches.').waitFor();
  });

  it('can be used by keys alone', async () => {
    const page = await open(busyHost(30));
    await page.keyboard.press('j');
    await page.keyboard.press('j');
    assert.equal(await page.evaluate('document.activeElement.textContent'), 'web-2');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Machines / web-2' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('heading', { name: 'Running' }).waitFor();
  });

  it('shows a machine, and asks before it stops it', async () => {
    const page = await open(busyHost(30), {}, `#/machines/${idOf(9001)}`);
    await page.getByRole('heading', { name: 'Machines / web' }).waitFor();
    await requireAccessible(page, 'a machine');
    await picture(page, 'machine');
    await page.getByRole('button', { name: 'Stop web' }).click();
    await page.getByText('Stop web? What was not saved is lost.').waitFor();
    await requireAccessible(page, 'a question');
    await page.keyboard.press('Escape');
    await page.getByText('Stop web? What was not saved is lost.').waitFor({ state: 'detached' });
    assert(!server.requests.some((each) => each.includes('/stop')));
  });

  it('shows a snapshot with the map of its pages, one block exactly, and numbers', async () => {
    for (const scheme of ['dark', 'light'] as const) {
      const page = await open(busyHost(60), { scheme, height: 1000 }, `#/snapshots/${idOf(40)}`);
      await page.locator('canvas').waitFor();
      await requireAccessible(page, 'a snapshot');
      await picture(page, `snapshot-${scheme}`);
      await page.getByRole('application').focus();
      await page.keyboard.press('ArrowDown');
      await page.getByText(/page 512 · 0x200000/).waitFor();
      await page.keyboard.press('Enter');
      await page.getByRole('button', { name: 'Whole region' }).waitFor();
      await requested(/map\?.*fromPage=512&pages=512/);
      await picture(page, `block-${scheme}`);
      await page.getByRole('button', { name: 'Table' }).click();
      await page.getByRole('columnheader', { name: 'damaged' }).waitFor();
      await requireAccessible(page, 'the table');
      await page.getByLabel('Changed since').selectOption(idOf(39));
      await page.getByRole('button', { name: 'Table' }).waitFor();
      await requested(new RegExp(`map\\?.*base=${idOf(39)}`));
      if (scheme === 'dark') await server.close();
    }
  });

  it('tells the pause of a save and when its data was verified, and forks it', async () => {
    const page = await open(busyHost(60), {}, `#/snapshots/${idOf(40)}`);
    await page.getByText(/30 hours ago/).waitFor();
    assert.match(await page.locator('body').innerText(), /Pause\s*2\.9 ms/);
    await page.getByLabel('Number of clones').fill('3');
    await page.getByRole('button', { name: 'Fork' }).click();
    await requested(new RegExp(`POST /v1/snapshots/${idOf(40)}/fork`));
  });

  it('keeps the keyboard in the map while blocks are opened and left', async () => {
    const page = await open(busyHost(60), {}, `#/snapshots/${idOf(40)}`);
    const isInMap = (): Promise<boolean> => page.evaluate("document.activeElement.className === 'map'");
    await page.getByRole('application').focus();
    for (const key of ['ArrowDown', 'ArrowRight', 'Enter']) await page.keyboard.press(key);
    await until(page, 'document.querySelector("canvas").height === 1');
    await page.getByText(/page 513 · 0x201000/).waitFor();
    assert(await isInMap());
    await page.keyboard.press('ArrowRight');
    await page.getByText(/page 514 · 0x202000/).waitFor();
    await page.keyboard.press('Escape');
    await until(page, 'document.querySelector("canvas").height === 256');
    await page.getByText(/page 514 · 0x202000/).waitFor();
    assert(await isInMap());
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Whole region' }).click();
    await until(page, 'document.querySelector("canvas").height === 256');
    await until(page, "document.activeElement.className === 'map'");
    await page.keyboard.press('Escape');
    await page.getByRole('heading', { name: 'Running' }).waitFor();
  });

  it('shows a single damaged page, also on a phone', async () => {
    for (const width of [360, 1280]) {
      const map = () => {
        const cells = new Uint8Array(131_072).fill(2);
        cells[512 * 100 + 101] = 4 | 8;
        return {
          ...{ region: 'ram@0x0', sizeBytes: 2 ** 29, fromPage: 0, pages: cells.length, pagesPerCell: 1 },
          ...{ zeroPages: 0, sharedPages: 131_071, ownPages: 0, damagedPages: 1, changedPages: 1, cells },
        };
      };
      const page = await open(busyHost(60), { width, queries: { map } }, `#/snapshots/${idOf(40)}`);
      await page.locator('canvas').waitFor();
      await until(page, 'document.querySelector("canvas").width <= innerWidth');
      const damaged = await page.evaluate<number>(`(() => {
        const canvas = document.querySelector('canvas');
        const hue = getComputedStyle(document.documentElement).getPropertyValue('--damaged').trim();
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let i = 0; i < data.length; i += 4)
          if ('#' + [...data.slice(i, i + 3)].map((part) => part.toString(16).padStart(2, '0')).join('') === hue) found++;
        return found;
      })()`);
      assert.equal(damaged, 1, `${width} px`);
      await picture(page, `damaged-${width}`);
      await server.close();
    }
  });

  it('tells when the pages cannot be read', async () => {
    const map = () => {
      throw new LivesnapError('NO_SUCH_SNAPSHOT', 'it was deleted', { hint: 'Choose another.' });
    };
    const page = await open(busyHost(60), { queries: { map } }, `#/snapshots/${idOf(40)}`);
    await page.getByText('The pages could not be read.').waitFor();
    await page.getByText('it was deleted. Choose another.').waitFor();
    await requireAccessible(page, 'an error');
  });

  it('shows the first steps where nothing is stored', async () => {
    const page = await open(EMPTY, { scheme: 'light' });
    await page.getByText('livesnap demo').waitFor();
    await requireAccessible(page, 'nothing');
    await picture(page, 'empty');
  });

  it('tells when the server is lost, and goes on when it is back', async () => {
    const overview = busyHost(30);
    const page = await open(overview);
    const { port } = server;
    await server.close();
    await page.getByText(/Not connected since/).waitFor();
    await requireAccessible(page, 'no server');
    await picture(page, 'lost');
    server = await FakeServer.start(overview, queriesOf(overview), port);
    // Sessions are signed with the token, which is the same.
    await page.getByText('● live').waitFor();
  });

  it('asks for a sign-in without a session, and after it has ended', async () => {
    const page = await open(EMPTY);
    await page.evaluate('sessionStorage.clear()');
    await page.goto(`http://127.0.0.1:${server.port}/`);
    await page.getByText('You are not signed in.').waitFor();
    await requireAccessible(page, 'the sign-in');
    const stolen = server.signInUrl;
    await page.goto('about:blank');
    await page.goto(stolen);
    await page.getByText('● live').waitFor();
    const other = await (await browser.newContext()).newPage();
    await other.goto(stolen);
    await other.getByText('You are not signed in.').waitFor();
  });

  it('is never framed, and runs only its own scripts', async () => {
    server = await FakeServer.start(EMPTY);
    const { headers } = await fetch(`http://127.0.0.1:${server.port}/`);
    const policy = headers.get('content-security-policy')!;
    assert.match(policy, /script-src 'self';/);
    assert.match(policy, /frame-ancestors 'none'/);
    assert.equal((await fetch(`http://127.0.0.1:${server.port}/app/..%2f..%2fpackage.json`)).status, 401);
    const etag = headers.get('etag')!;
    const again = await fetch(`http://127.0.0.1:${server.port}/`, { headers: { 'if-none-match': etag } });
    assert.equal(again.status, 304);
  });
});
