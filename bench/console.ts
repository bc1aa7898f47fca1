/**
 * CPU time per byte of console output, with posted writes and with an exit per byte. The difference is why posted
 * writes are in C++ (ARCHITECTURE.md, "The device thread"). The time is of the whole process, guest included.
 *
 *     npm run bench:console
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  attachDeviceThread,
  closeMachine,
  EXIT_DATA_OFFSET,
  EXIT_PAGE_BYTES,
  ExitWord,
  requestPause,
  resumeVcpus,
  setPostedPort,
  startVcpus,
  WaitEvent,
  wait,
} from '../src/native/kvm.js';
import { createMemory, writeMemory } from '../src/native/memory.js';
import { describeHost } from '../src/vmm/kvm/host.js';
import { getRegs, getSregs, setRegs, setSregs } from '../src/vmm/kvm/vcpu-state.js';
import { createVm } from '../src/vmm/kvm/vm.js';

const RAM_BYTES = 2 << 20;
const CODE_GPA = 0x1000;
const PORT = 0x3f8;
const LINES = 400;
const LINE_BYTES = 36;
/** Real mode, in an endless loop: 36 times `out %al, $0x3f8`, then `in` of the line status register. */
const CODE = Buffer.from('bb2400baf803b041ee4b75fcbafd03ecebee', 'hex');

async function run(posted: boolean): Promise<{ cpuUs: number; wallUs: number }> {
  const memory = createMemory(RAM_BYTES);
  writeMemory(memory, CODE_GPA, CODE);
  const machine = createVm(describeHost(), 1, [{ gpa: 0, memory }], false);
  const page = new Uint8Array(EXIT_PAGE_BYTES);
  const words = new Uint32Array(page.buffer, 0, EXIT_DATA_OFFSET / 4);
  attachDeviceThread(machine, page);
  const sregs = getSregs(machine, 0);
  const cs = { ...sregs.segments.cs, base: 0n, selector: 0 };
  setSregs(machine, 0, { ...sregs, segments: { ...sregs.segments, cs } });
  setRegs(machine, 0, { ...getRegs(machine, 0), rip: BigInt(CODE_GPA), rflags: 2n });
  if (posted) setPostedPort(machine, PORT);
  startVcpus(machine);
  resumeVcpus(machine);
  let lines = 0;
  let bytes = 0;
  const cpu = process.cpuUsage();
  const begun = performance.now();
  while (lines < LINES) {
    const event = wait(machine, -1);
    if (event === WaitEvent.loop) await nextTurn();
    else if (event === WaitEvent.posted) bytes += words[ExitWord.count]!;
    else if (words[ExitWord.isWrite] === 1) bytes++;
    else lines++;
  }
  const { user, system } = process.cpuUsage(cpu);
  const wallUs = (performance.now() - begun) * 1000;
  requestPause(machine);
  closeMachine(machine);
  if (bytes < LINES * LINE_BYTES) throw new Error(`received ${bytes} of ${LINES * LINE_BYTES} bytes`);
  return { cpuUs: (user + system) / bytes, wallUs: wallUs / bytes };
}

const rounds = 5;
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
for (const posted of [false, true]) {
  const results = [];
  for (let i = 0; i < rounds; i++) results.push(await run(posted));
  const cpu = results.map(({ cpuUs }) => cpuUs);
  const wall = results.map(({ wallUs }) => wallUs);
  const spread = `${Math.min(...cpu).toFixed(0)}–${Math.max(...cpu).toFixed(0)}`;
  process.stdout.write(
    `${posted ? 'posted' : 'an exit per byte'}: ${median(cpu).toFixed(0)} µs of CPU per byte (${spread}), ${median(wall).toFixed(0)} µs elapsed\n`,
  );
}
process.exit();
