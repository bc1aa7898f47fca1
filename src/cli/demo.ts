import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { temporaryDirectory } from '../environment.js';
import { asLivesnapError } from '../errors.js';
import { formatBytes, formatCount, formatDuration, formatRatio } from '../format.js';
import type { Host } from '../host/host.js';
import type { Machine } from '../host/machine.js';
import type { StartOptions } from '../host/machine-options.js';
import {
  chooseGuest,
  type DemoGuest,
  initramfsFor,
  type LinuxGuest,
  probeGuest,
  thisDemoHost,
} from './demo-guest.js';
import { abortedByInterruption } from './interruption.js';
import { LiveLines } from './live-lines.js';
import { defineVerb } from './verb.js';

const MEMORY_BYTES = 256 << 20;
/** If the command is killed, its machines end by themselves. Far more than the demo takes on a slow host. */
const LIFETIME_MS = 600_000;
const CLONES = 5;
const WATCH_MS = 3_000;
const ANSWER_MS = 60_000;
/** How long a kernel of the host may take until it counts. */
const LINUX_BOOT_MS = 20_000;
/** The console without messages of the kernel. A panic ends the machine. */
const LINUX_CMDLINE = 'console=ttyS0 quiet loglevel=0 panic=-1 reboot=t';

export const verb = defineVerb({
  name: 'demo',
  operands: [],
  usesStore: false,
  options: {},
  notes: [
    'Boots a machine, saves it while it runs, starts five clones of it, kills the',
    'original and restores it. All of that is in a temporary directory, which is',
    'removed at the end.',
    'The guest is a kernel of this host, from /boot, where KVM has VMX or SVM and the',
    'kernel can be read. Elsewhere it is a small bundled one.',
  ].join('\n'),
  async run({ output }) {
    const dir = mkdtempSync(join(temporaryDirectory(), 'livesnap-demo-'));
    mkdirSync(join(dir, 'run'), { mode: 0o700 });
    // The demo's machines are apart from the user's.
    process.env.XDG_RUNTIME_DIR = join(dir, 'run');
    const signal = abortedByInterruption('the demo was interrupted');
    const { Host } = await import('../host/host.js');
    const host = new Host(join(dir, 'store'));
    const isLive = process.stdout.isTTY && !output.json && !output.quiet;
    const say = (text = ''): void => {
      if (!output.json && !output.quiet) process.stdout.write(`${text}\n`);
    };
    try {
      const figures = await new Demo({ host, dir, say, isLive, signal }).play();
      output.result(
        figures,
        () => '\nNothing of this is left. To start with your own kernel: livesnap start --help',
      );
    } finally {
      await endAll(host);
      rmSync(dir, { recursive: true, force: true });
    }
    return 0;
  },
});

/** Ends the machines that are left. */
async function endAll(host: Host): Promise<void> {
  const { stopNamedMachine } = await import('../host/stop-machine.js');
  const { runRoot } = await import('../environment.js');
  const request = { force: true, discard: true, timeoutMs: 0 };
  const machines = await host.machines();
  await Promise.allSettled(machines.map(({ name }) => stopNamedMachine(name, request, runRoot())));
}

interface DemoOptions {
  readonly host: Host;
  /** For files of the demo. */
  readonly dir: string;
  readonly say: (text?: string) => void;
  readonly isLive: boolean;
  readonly signal: AbortSignal;
}

class Demo {
  readonly host: Host;
  readonly dir: string;
  readonly say: (text?: string) => void;
  readonly isLive: boolean;
  readonly signal: AbortSignal;

  constructor({ host, dir, say, isLive, signal }: DemoOptions) {
    this.host = host;
    this.dir = dir;
    this.say = say;
    this.isLive = isLive;
    this.signal = signal;
  }

  async play(): Promise<Record<string, unknown>> {
    const { say, signal } = this;
    const { guest, machine: original, ms: bootMs } = await this.#boot(chooseGuest(await thisDemoHost()));
    if (guest.kind === 'probe') say(guest.why);
    const kernel = guest.kind === 'linux' ? `${basename(guest.kernel)} of this host in ` : '';
    say(`Booted ${kernel}a machine of ${formatBytes(MEMORY_BYTES)} in ${formatDuration(bootMs)}.`);
    await this.#fill(original);
    const before = await this.#count(original);
    say(`It has filled ${formatBytes(FILLED_BYTES)} of its memory, and counts: ${before}.\n`);

    const saved = await original.save({ tags: ['demo'], signal });
    say(
      `Saved it while it ran: paused for ${formatDuration(saved.pauseMs)}, all done in ${formatDuration(saved.saveMs)}.`,
    );
    const forked = await this.#timed(() =>
      this.host.fork(saved.id, { count: CLONES, name: 'clone', lifetimeMs: LIFETIME_MS, signal }),
    );
    const clones = forked.result.map((each) => {
      if ('error' in each) throw each.error;
      each.machine.detach();
      return each.machine;
    });
    say(`Forked it ${CLONES} times in ${formatDuration(forked.ms)}. Each clone counts on from ${before}:\n`);
    const counts = await this.#watch(clones);

    killIfThere(original.about.pid);
    await this.#gone(original);
    const restored = await this.#timed(() =>
      this.host.restore(saved.id, { name: 'restored', lifetimeMs: LIFETIME_MS, signal }),
    );
    restored.result.detach();
    const after = await this.#count(restored.result);
    say(
      `\nKilled the original with SIGKILL, and restored it in ${formatDuration(restored.ms)}. It counts on: ${after}.`,
    );

    const stats = await this.host.store.stats();
    const liveBytes = (CLONES + 1) * MEMORY_BYTES;
    say(
      `${formatCount(CLONES + 1, 'machine')} of ${formatBytes(MEMORY_BYTES)}, ${formatBytes(liveBytes)} in all, come from ` +
        `${formatBytes(stats.storedBytes + stats.indexBytes)} on disk (${formatRatio(liveBytes / (stats.storedBytes + stats.indexBytes))}).`,
    );
    return {
      guest: guest.kind,
      kernel: guest.kernel,
      bootMs,
      pauseMs: saved.pauseMs,
      saveMs: saved.saveMs,
      forkMs: forked.ms,
      clones: CLONES,
      counts,
      restoreMs: restored.ms,
      memoryBytes: MEMORY_BYTES,
      storedBytes: stats.storedBytes + stats.indexBytes,
    };
  }

  async #timed<T>(work: () => Promise<T>): Promise<{ result: T; ms: number }> {
    const startedMs = performance.now();
    const result = await work();
    return { result, ms: Math.round(performance.now() - startedMs) };
  }

  /** If a kernel of the host does not boot, the bundled one does. */
  async #boot(guest: DemoGuest): Promise<{ guest: DemoGuest; machine: Machine; ms: number }> {
    if (guest.kind === 'probe') {
      const { result: machine, ms } = await this.#timed(() => this.#start(guest));
      return { guest, machine, ms };
    }
    try {
      const { result: machine, ms } = await this.#timed(() => this.#startLinux(guest));
      return { guest, machine, ms };
    } catch (error) {
      this.signal.throwIfAborted();
      await endAll(this.host);
      const { message } = asLivesnapError(error);
      return this.#boot(probeGuest(`${guest.kernel} did not boot (${message})`));
    }
  }

  async #start({ kernel }: DemoGuest, more: Partial<StartOptions> = {}): Promise<Machine> {
    const machine = await this.host.start({
      kernel,
      memoryBytes: MEMORY_BYTES,
      name: 'demo',
      lifetimeMs: LIFETIME_MS,
      signal: this.signal,
      ...more,
    });
    machine.detach();
    return machine;
  }

  /** Resolves when the guest counts. */
  async #startLinux(guest: LinuxGuest): Promise<Machine> {
    const initrd = join(this.dir, 'initrd');
    writeFileSync(initrd, await initramfsFor(guest), { mode: 0o600 });
    const machine = await this.#start(guest, { initrd, cmdline: LINUX_CMDLINE });
    await using console = await machine.console();
    await console.waitFor(TICK, { timeoutMs: LINUX_BOOT_MS, signal: this.signal });
    return machine;
  }

  /** Half of it compressible text, half of it noise. */
  async #fill(machine: Machine): Promise<void> {
    await using console = await machine.console();
    for (const line of FILLS) {
      await console.write(`${line}\n`);
      await console.waitFor(/^OK/, { timeoutMs: ANSWER_MS, signal: this.signal });
    }
  }

  /** The number of the guest's next tick. */
  async #count(machine: Machine): Promise<number> {
    await using console = await machine.console();
    const line = await console.waitFor(TICK, { timeoutMs: ANSWER_MS, signal: this.signal });
    return Number(TICK.exec(line)![1]);
  }

  /** Shows the counters of the clones for some seconds, on a terminal as they change. Returns the last counts. */
  async #watch(clones: readonly Machine[]): Promise<number[]> {
    const counts = clones.map(() => 0);
    const lines = (): string[] => clones.map(({ name }, i) => `  ${name}  ${counts[i]}`);
    const view = this.isLive ? new LiveLines(process.stdout) : null;
    const end = performance.now() + WATCH_MS;
    await Promise.all(
      clones.map(async (clone, i) => {
        await using console = await clone.console();
        while (performance.now() < end || counts[i] === 0) {
          const line = await console.waitFor(TICK, { timeoutMs: ANSWER_MS, signal: this.signal });
          counts[i] = Number(TICK.exec(line)![1]);
          view?.show(lines());
        }
      }),
    );
    if (view === null) for (const line of lines()) this.say(line);
    return counts;
  }

  /** Waits until the process of a machine that was killed has ended. */
  async #gone(machine: Machine): Promise<void> {
    while ((await this.host.machines()).some(({ id, state }) => id === machine.id && state !== 'gone'))
      await sleep(20, undefined, { signal: this.signal });
  }
}

/** A machine may have ended by itself, for example because the host has no memory. The restore does not need it. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

const TICK = /^TICK (\d+)/;
const FILLS = ['text 7 64', 'fill 9 32'];
const FILLED_BYTES = 96 << 20;
