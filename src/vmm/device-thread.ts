/**
 * The device thread of one machine: a Worker in which all device models live and all vCPU exits are answered.
 *
 * Data: exits come out of `wait()` in the exit page, answers go back in it; requests and console input come as
 * messages, console output and the machine's end leave as messages. Invariants: nothing here blocks but `wait()`;
 * state is read only while the vCPUs are parked; however the Worker ends, the addon joins the vCPU threads first.
 */

import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parentPort } from 'node:worker_threads';
import { LivesnapError, type PlainError } from '../errors.js';
import {
  attachDeviceThread,
  closeMachine,
  EXIT_DATA_OFFSET,
  EXIT_PAGE_BYTES,
  ExitWord,
  type KvmMachine,
  machineIoctl,
  REASON_RUN_FAILED,
  requestPause,
  resumeVcpus,
  setPostedPort,
  startVcpus,
  WaitEvent,
  wait,
} from '../native/kvm.js';
import { ConsoleCounters } from './console/console-counters.js';
import { ConsoleInput } from './console/console-input.js';
import { ConsoleOutput } from './console/console-output.js';
import type {
  DeviceThreadParts,
  FromDeviceThread,
  PlainEnd,
  Request,
  ToDeviceThread,
} from './device-thread-messages.js';
import type { Bus } from './devices/bus.js';
import type { AccessSize, DeviceParts } from './devices/device.js';
import { Platform } from './devices/platform.js';
import { COM1_BASE } from './devices/ports.js';
import { ExitReason, Ioctl, Msr } from './kvm/abi.js';
import { describeExit, describeTripleFault } from './kvm/exit-text.js';
import { failedInstruction } from './kvm/failed-instruction.js';
import { describeHost, type HostKvm } from './kvm/host.js';
import { finishInstruction, setDeadline } from './kvm/pvm.js';
import { getRegs, saveVcpu } from './kvm/vcpu-state.js';
import { createVm, enterKernel, type MemorySlot, restoreKvm } from './kvm/vm.js';
import { saveVm } from './kvm/vm-state.js';
import { decodeMachineState, encodeMachineState, MACHINE_STATE_VERSION } from './machine-state.js';
import { GuestRam } from './memory/guest-memory.js';

/** How long output without the end of a line may wait for more. */
const GATHER_MS = 1;
/** How often output is offered again to a main thread that is busy. */
const HELD_BACK_MS = 10;

const port = parentPort!;
const post = (message: FromDeviceThread): void => port.postMessage(message);

function plainError(error: unknown): PlainError {
  if (error instanceof LivesnapError) return error.toJSON();
  const { message, stack } = error as Error;
  post({ type: 'log', message: stack ?? message });
  return { code: 'MACHINE_FAILED', message: `the device thread failed: ${message}`, hint: null };
}

class DeviceThread {
  readonly #host: HostKvm;
  readonly #machine: KvmMachine;
  readonly #cpus: number;
  readonly #platform: Platform;
  readonly #output: ConsoleOutput;
  readonly #input: ConsoleInput;
  readonly #exitPage = new Uint8Array(EXIT_PAGE_BYTES);
  readonly #words = new Uint32Array(this.#exitPage.buffer, 0, EXIT_DATA_OFFSET / 4);
  readonly #data = this.#exitPage.subarray(EXIT_DATA_OFFSET);
  readonly #pausing: number[] = [];
  #posting = false;
  #end: PlainEnd | null = null;

  constructor(data: DeviceThreadParts) {
    const counters = new ConsoleCounters(data.consoleCounters);
    this.#output = new ConsoleOutput(
      (bytes, missedBytes) => post({ type: 'console', bytes, missedBytes }),
      () => counters.outputMessages,
    );
    this.#input = new ConsoleInput(
      (bytes) => this.#platform.console.offerInput(bytes),
      (bytes) => counters.addInputBytes(bytes),
    );
    this.#host = describeHost();
    this.#cpus = data.cpus;
    const state = 'state' in data.begin ? decodeMachineState(data.begin.state) : null;
    this.#machine = createVm(this.#host, data.cpus, data.slots, state !== null);
    try {
      attachDeviceThread(this.#machine, this.#exitPage);
      if (state) restoreKvm(this.#machine, this.#host, state);
      else if ('boot' in data.begin) enterKernel(this.#machine, this.#host, data.cpus, data.begin.boot);
      const parts = this.#platformParts(data.slots);
      this.#platform = state ? Platform.restore(parts, state.devices) : Platform.create(parts);
      this.#updatePosting();
      startVcpus(this.#machine);
    } catch (error) {
      closeMachine(this.#machine);
      throw error;
    }
    post({ type: 'ready', machine: this.#machine });
  }

  #platformParts(slots: readonly MemorySlot[]): DeviceParts {
    return {
      memory: new GuestRam(slots),
      clock: { nowMs: Date.now },
      irqLine: (gsi) => {
        // struct kvm_irq_level
        const argument = new Uint8Array(8);
        const view = new DataView(argument.buffer);
        view.setUint32(0, gsi, true);
        return {
          set: (level) => {
            view.setUint32(4, level ? 1 : 0, true);
            machineIoctl(this.#machine, Ioctl.IRQ_LINE, argument);
          },
        };
      },
      onConsoleOutput: (bytes) => this.#output.write(bytes),
      onConsoleDrained: () => this.#input.drain(),
      onReset: () => this.#finish({ kind: 'reset' }),
      onPowerOff: () => this.#finish({ kind: 'halted' }),
    };
  }

  #finish(end: PlainEnd): void {
    this.#end ??= end;
  }

  /** Answers exits and messages until the machine ends. */
  async run(): Promise<void> {
    port.on('message', (message: ToDeviceThread) => this.#receive(message));
    while (this.#end === null) {
      const event = wait(this.#machine, this.#outputTimeoutMs());
      if (event === WaitEvent.exit) this.#answer();
      else if (event === WaitEvent.posted) this.#accessPort();
      else if (event === WaitEvent.loop) await nextTurn();
      else if (event === WaitEvent.timeout) this.#output.flush();
      else if (event === WaitEvent.parked) this.#parked();
      else this.#finish({ kind: 'stopped' });
    }
    this.#output.flushAll();
    closeMachine(this.#machine);
    post({ type: 'end', end: this.#end });
  }

  #receive(message: ToDeviceThread): void {
    if (message.op === 'begin') return;
    if (message.op === 'input') {
      this.#input.write(message.bytes);
      return;
    }
    try {
      this.#perform(message);
    } catch (error) {
      post({ type: 'reply', id: message.id, error: plainError(error) });
    }
  }

  #perform(request: Request): void {
    switch (request.op) {
      case 'pause':
        this.#pausing.push(request.id);
        requestPause(this.#machine);
        return;
      case 'resume':
        resumeVcpus(this.#machine);
        break;
      case 'saveState':
        post({ type: 'reply', id: request.id, state: this.#saveState() });
        return;
      case 'stop':
        this.#finish({ kind: request.end });
        break;
    }
    post({ type: 'reply', id: request.id });
  }

  /** When output that waits is offered again; −1: none waits. */
  #outputTimeoutMs(): number {
    if (this.#output.isEmpty) return -1;
    return this.#output.isHeldBack ? HELD_BACK_MS : GATHER_MS;
  }

  #parked(): void {
    this.#output.flushAll();
    for (const id of this.#pausing.splice(0)) post({ type: 'reply', id });
  }

  /** Devices first: reading KVM's state changes nothing of theirs, and they hold what an exit has just left. */
  #saveState(): Uint8Array {
    const devices = this.#platform.save();
    const vcpus = Array.from({ length: this.#cpus }, (_, vcpu) => saveVcpu(this.#machine, vcpu));
    return encodeMachineState({ version: MACHINE_STATE_VERSION, vcpus, vm: saveVm(this.#machine), devices });
  }

  #answer(): void {
    const words = this.#words;
    const reason = words[ExitWord.reason];
    if (reason === ExitReason.IO) {
      this.#accessPort();
    } else if (reason === ExitReason.MMIO) {
      this.#access(this.#platform.mmio, words[ExitWord.sizeBytes] as AccessSize, 1);
    } else if (reason === ExitReason.X86_WRMSR && words[ExitWord.addressLow] === Msr.IA32_TSC_DEADLINE) {
      const deadline = BigInt(words[ExitWord.dataLow]!) | (BigInt(words[ExitWord.dataHigh]!) << 32n);
      setDeadline(this.#machine, words[ExitWord.vcpu]!, deadline);
    } else {
      this.#answerRare(reason!);
    }
  }

  #accessPort(): void {
    const words = this.#words;
    this.#access(this.#platform.pio, words[ExitWord.sizeBytes] as AccessSize, words[ExitWord.count]!);
    this.#updatePosting();
  }

  /** Has console output gathered while the port does nothing but send it. */
  #updatePosting(): void {
    const { sendsOnly } = this.#platform.console;
    if (sendsOnly === this.#posting) return;
    this.#posting = sendsOnly;
    setPostedPort(this.#machine, sendsOnly ? COM1_BASE : null);
  }

  #access(bus: Bus, size: AccessSize, count: number): void {
    const words = this.#words;
    const address = words[ExitWord.addressLow]! + words[ExitWord.addressHigh]! * 2 ** 32;
    if (words[ExitWord.isWrite] === 1) bus.writeItems(address, size, count, this.#data, 0);
    else bus.readItems(address, size, count, this.#data, 0);
    this.#platform.flush();
  }

  /** Exits that end the machine, or that only a PVM host makes. */
  #answerRare(reason: number): void {
    const vcpu = this.#words[ExitWord.vcpu]!;
    if (reason === ExitReason.SHUTDOWN) {
      const { rip } = getRegs(this.#machine, vcpu);
      post({ type: 'log', message: describeTripleFault(this.#host.kind, vcpu, rip) });
      this.#finish({ kind: 'reset' });
      return;
    }
    const suberror = this.#words[ExitWord.suberror]!;
    const instruction =
      reason === ExitReason.INTERNAL_ERROR
        ? failedInstruction(suberror, this.#words[ExitWord.count]!, this.#data)
        : null;
    if (instruction && this.#host.kind === 'pvm' && finishInstruction(this.#machine, vcpu, instruction))
      return;
    const message = describeExit(vcpu, getRegs(this.#machine, vcpu).rip, {
      reason,
      runFailed: reason === REASON_RUN_FAILED,
      detail: this.#words[ExitWord.dataLow]!,
      suberror,
      instruction,
    });
    this.#finish({ kind: 'failed', error: { code: 'MACHINE_FAILED', message, hint: null } });
  }
}

const [first] = (await once(port, 'message')) as [ToDeviceThread];
try {
  if (first.op !== 'begin') throw new TypeError(`the first message is ${first.op}`);
  await new DeviceThread(first.parts).run();
} catch (error) {
  post({ type: 'end', end: { kind: 'failed', error: plainError(error) } });
}
port.close();
