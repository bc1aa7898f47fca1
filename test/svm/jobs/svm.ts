/** What the jobs share: the console of a guest, and the stock kernel that scripts/svm-host gets. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { hearing, type World } from '../../e2e/cli.js';
import { limit } from '../../timeouts.js';

/** LIVESNAP_STOCK_GUEST is the directory with vmlinuz, initrd, disk-initrd and disk.img. */
export function stockGuest(file: 'vmlinuz' | 'initrd' | 'disk-initrd' | 'disk.img'): string {
  const dir = process.env.LIVESNAP_STOCK_GUEST;
  assert.ok(dir, 'LIVESNAP_STOCK_GUEST is not set: this test runs in npm run test:svm');
  return join(dir, file);
}

/** Waits for the guest's next line that matches, and returns it. */
export async function hear(world: World, machine: string, expected: RegExp): Promise<string> {
  const ran = await world.run([
    ...['console', machine, '--until', expected.source, '--timeout', String(limit(60))],
  ]);
  assert.equal(ran.status, 0, `${expected}: ${ran.stdout}${ran.stderr}`);
  return ran.stdout.trimEnd().split('\n').at(-1)!.trim();
}

/** Waits until the guest has shown a shell's prompt. Input that is typed before may be lost: Linux clears the FIFO. */
export async function awaitShell(world: World, machine: string): Promise<void> {
  const console = world.spawn('console', machine);
  try {
    await hearing(console, 'stdout', /LINUX READY[\s\S]*\/root # /);
  } finally {
    console.kill();
  }
}
