/** A process with a running machine that ends in the way that its argument names. Prints READY before a signal is due. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { Machine } from '../../src/vmm/machine.js';
import { probe } from './kvm.js';

/** The device thread of the machine: the Worker that was last posted a message. */
let deviceThread: Worker | null = null;
const { postMessage } = Worker.prototype;
Worker.prototype.postMessage = function (this: Worker, ...args: Parameters<typeof postMessage>) {
  deviceThread = this;
  postMessage.apply(this, args);
};

const machine = await Machine.create({
  kernel: probe('probe.elf'),
  initrd: null,
  cmdline: null,
  memoryBytes: 64 << 20,
  cpus: 2,
});
await machine.resume();
let seen = '';
while (!seen.includes('TICK'))
  seen += Buffer.from((await once(machine, 'console'))[0] as Uint8Array).toString();

const ways: Record<string, () => unknown> = {
  exit: () => process.exit(7),
  'exit while paused': async () => {
    await machine.pause();
    process.exit(7);
  },
  'exit during a pause': () => {
    void machine.pause();
    process.exit(7);
  },
  'SIGTERM with a handler': () => process.on('SIGTERM', () => process.exit(7)),
  'SIGTERM without a handler': () => {},
  SIGKILL: () => {},
  'uncaught exception': () =>
    setImmediate(() => {
      throw new Error('on purpose');
    }),
  stop: async () => {
    await machine.stop();
    process.exitCode = 7;
  },
  'stop while paused': async () => {
    await machine.pause();
    await machine.stop();
    process.exitCode = 7;
  },
  'device thread terminated': async () => {
    void deviceThread!.terminate();
    await once(machine, 'end');
    process.exitCode = 7;
  },
  'device thread throws': async () => {
    deviceThread!.postMessage(null);
    const [end] = await once(machine, 'end');
    process.exitCode = end.kind === 'failed' ? 7 : 1;
  },
  'guest reset': async () => {
    machine.writeConsole(Buffer.from('reset\n'));
    const [end] = await once(machine, 'end');
    process.exitCode = end.kind === 'reset' ? 7 : 1;
  },
  'guest halt': async () => {
    machine.writeConsole(Buffer.from('halt\n'));
    const [end] = await once(machine, 'end');
    process.exitCode = end.kind === 'halted' ? 7 : 1;
  },
};

await ways[process.argv[2]!]!();
process.stdout.write('READY\n');
