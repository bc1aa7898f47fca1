/**
 * Guests that misuse their machine in ways that no kernel does. Whatever they do, the machine's process answers, its
 * memory is bounded, and it stops on request without leaving anything behind. A machine that cannot continue says why.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ending, World } from '../e2e/cli.js';
import { requireKvm } from '../kvm/kvm.js';
import { HostileGuests } from './guests.js';

/** The most memory that a machine's process may use besides guest RAM, which is shared memory: Node with two isolates. */
const MAX_ANONYMOUS_BYTES = 256 << 20;
/** How much of the flood the viewer reads. Every byte of it ends a line. */
const FLOOD_BYTES = 64 << 10;

function anonymousBytes(pid: number): number {
  const [, kib] = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))!;
  return Number(kib) * 1024;
}

describe('a hostile guest', function () {
  this.timeout(120_000);
  let guests: HostileGuests | null = null;
  let world: World;
  before(function () {
    requireKvm(this);
    guests = new HostileGuests();
  });
  after(() => guests?.remove());
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  const start = async (guest: string, ...more: string[]): Promise<number> => {
    const kernel = guests!.kernel(guest);
    const args = ['--kernel', kernel, '--memory', '64M', '--detach', '--name', 'h', ...more];
    return (await world.json<{ pid: number }>('start', ...args)).pid;
  };
  /** Attaches to the console and sends the byte that the guest waits for. */
  const provoke = (...until: string[]) => world.run(['console', 'h', ...until], 'g');
  const provokeUntilDone = async (): Promise<void> => {
    const ran = await provoke('--until', '^D', '--timeout', '60');
    assert.equal(ran.status, 0, `${ran.stdout}${ran.stderr}`);
  };

  /** Asserts that the machine runs with bounded memory, can be paused and resumed, and stops without a trace. */
  async function assertAlive(pid: number): Promise<void> {
    const [row] = await world.json<{ state: string; pid: number }[]>('ps');
    assert.deepEqual([row!.state, row!.pid], ['running', pid]);
    assert.deepEqual(await world.json('pause', 'h'), { name: 'h', state: 'paused' });
    assert.deepEqual(await world.json('resume', 'h'), { name: 'h', state: 'running' });
    const bytes = anonymousBytes(pid);
    assert.ok(bytes < MAX_ANONYMOUS_BYTES, `the process holds ${bytes} bytes`);
    assert.equal((await world.json('stop', 'h')).state, 'stopped');
    assert.deepEqual(world.machines(), []);
  }

  const survivors = {
    dead: 'halts forever with interrupts off',
    mmio: 'accesses addresses without RAM or devices, in every size',
    msr: 'writes all ones to its timers and disables its APIC',
    ports: 'reads and writes every port in every size',
    'string-io': 'transfers more by one string instruction than fits into one exit',
  } as const;
  for (const [guest, does] of Object.entries(survivors)) {
    it(`that ${does} keeps running, and stops on request`, async () => {
      const pid = await start(guest);
      await provokeUntilDone();
      await assertAlive(pid);
    });
  }

  it('that floods its console does not grow its process, with a viewer or without, and stops on request', async () => {
    const pid = await start('flood');
    const viewer = world.spawn('console', 'h');
    viewer.stdin!.write('g');
    let seen = 0;
    await new Promise<void>((resolve, reject) => {
      viewer.stdout!.on('data', (part: Buffer) => {
        seen += part.length;
        if (seen >= FLOOD_BYTES) resolve();
      });
      viewer.once('close', () => reject(new Error(`the viewer ended after ${seen} bytes`)));
    });
    assert.ok(anonymousBytes(pid) < MAX_ANONYMOUS_BYTES);
    const ended = ending(viewer);
    viewer.kill('SIGTERM');
    await ended;
    await assertAlive(pid);
  });

  it('that rewrites its RAM all the time can be saved and restored, and stops on request', async () => {
    const pid = await start('rewrite');
    await provokeUntilDone();
    const { id } = await world.json<{ id: string }>('save', 'h');
    await assertAlive(pid);
    const restored = await world.json<{ pid: number }>('restore', id, '--detach', '--name', 'h');
    await assertAlive(restored.pid);
  });

  it('that halts forever can be saved and restored', async () => {
    await start('dead');
    await provokeUntilDone();
    const { id } = await world.json<{ id: string }>('save', 'h', '--then', 'stop');
    const { pid } = await world.json<{ pid: number }>('restore', id, '--detach', '--name', 'h');
    await assertAlive(pid);
  });

  it('that causes a triple fault resets its machine, which ends without a trace', async () => {
    await start('triple-fault');
    const ran = await provoke();
    assert.equal(ran.status, 0, ran.stderr);
    while (world.machines().length > 0) await sleep(10);
    assert.deepEqual(await world.json('ps'), []);
  });

  for (const [guest, does, reason] of [
    [
      'execute-mmio',
      'jumps to an address without RAM',
      /KVM cannot run the instruction at 0xd0000000 .*vCPU 0/,
    ],
    [
      'ipi',
      'sends its own processor to the reset vector',
      /KVM cannot run the instruction at 0xfff0 .*vCPU 0/,
    ],
  ] as const) {
    it(`that ${does} ends with the address in the error, and is listed as failed until cleaned up`, async () => {
      await start(guest);
      const ran = await provoke();
      assert.equal(ran.status, 1, ran.stderr);
      assert.match(ran.stderr, reason);
      const [row] = await world.json<{ name: string; state: string }[]>('ps');
      assert.deepEqual([row!.name, row!.state], ['h', 'failed']);
      const logs = await world.run(['logs', 'h']);
      assert.equal(logs.status, 0, logs.stderr);
      assert.ok(logs.stdout.endsWith(ran.stdout), 'its last output is kept');
      assert.deepEqual(await world.json('stop', 'h'), { name: 'h', state: 'gone' });
      assert.deepEqual(world.machines(), []);
    });
  }
});
