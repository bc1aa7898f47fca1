/**
 * Makes the pictures of the page in docs/images, of a made-up host.
 *
 *     npm run build && node dist/test/web/pictures.js [DIR]
 *
 * Run it again whenever the page looks different.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { projectRoot } from '../../src/native/project-root.js';
import { FakeServer } from './fake-host.js';
import { busyHost, idOf, machine, queriesOf } from './made-up.js';

/** Processor use of the machines of {@link busyHost}, from time to time. */
const CPU = [0.21, 0, 1.07, 0.29, 0.17];
const LOOKS = 20;
/** Looks that follow each other faster are no samples. */
const LOOK_MS = 1050;

const dir = process.argv[2] ?? join(projectRoot, 'docs/images');
const made = busyHost();
const overview = {
  ...made,
  machines: [
    ...made.machines.slice(0, CPU.length),
    machine('db-2', 6, { state: 'failed', reason: 'triple fault at 0xffffffff81000000', touchedBytes: null }),
  ],
};
const server = await FakeServer.start(overview, queriesOf(overview));
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu'],
});

async function open(height: number) {
  const context = await browser.newContext({ viewport: { width: 1100, height }, colorScheme: 'dark' });
  const page = await context.newPage();
  await page.goto(server.signInUrl);
  await page.getByText('● live').waitFor();
  return page;
}

const overall = await open(760);
const used = CPU.map(() => 10);
for (let look = 0; look < LOOKS; look++) {
  CPU.forEach((cpu, i) => {
    used[i]! += cpu * (1 + 0.4 * Math.sin(look * (i + 1)));
  });
  const usage = used.map((cpuSeconds, i) => [idOf(9001 + i), { ...overview.machines[i]!, cpuSeconds }]);
  server.tell('usage', Object.fromEntries(usage));
  await sleep(LOOK_MS);
}
await overall.screenshot({ path: join(dir, 'page.png') });

const map = await open(900);
await map.evaluate(`location.hash = '#/snapshots/${idOf(40)}'`);
await map.locator('canvas').waitFor();
await map.getByText('It can be restored here').waitFor();
await map.screenshot({ path: join(dir, 'page-map.png') });

await browser.close();
await server.close();
