/** Everything that devices use of the machine around them, under a test's control. */
import type {
  DeviceParts,
  EdgeIrq,
  IrqLine,
  Timer,
  WallClock,
  Watch,
} from '../../../../src/vmm/devices/device.js';
import type { DmaMemory } from '../../../../src/vmm/memory/guest-memory.js';

/** An interrupt line that remembers its level and counts its rising edges. */
export class FakeIrq implements IrqLine {
  level = false;
  edges = 0;
  sets = 0;

  set(level: boolean): void {
    this.sets++;
    if (level && !this.level) this.edges++;
    this.level = level;
  }
}

export class FakeClock implements WallClock {
  ms: number;

  constructor(time: string) {
    this.ms = Date.parse(time);
  }

  heldBackMs = 0;

  nowMs(): number {
    return this.ms;
  }
}

const touched = (gpa: number): never => {
  throw new Error(`an access to guest memory at ${gpa}`);
};

/** RAM of the given layout for devices that only ask how large it is. */
const untouchedMemory = (sizeBytes: number): DmaMemory => ({
  layout: [{ gpa: 0, sizeBytes }],
  contains: (gpa, length) => gpa + length <= sizeBytes,
  read: touched,
  write: touched,
  load16: touched,
  store16: touched,
  fillRandom: touched,
  discard: touched,
  locate: touched,
  markWritten: touched,
});

/** A timer that runs out when the test says so. */
export class FakeTimer implements Timer {
  delayMs: number | null = null;
  readonly #due: () => void;

  constructor(due: () => void) {
    this.#due = due;
  }

  set(delayMs: number | null): void {
    this.delayMs = delayMs;
  }

  /** Runs out now, if it is set. */
  expire(): void {
    if (this.delayMs === null) return;
    this.delayMs = null;
    this.#due();
  }
}

/** A machine around devices that records what happens to it. */
export class FakeMachine implements DeviceParts {
  readonly irqs = new Map<number, FakeIrq>();
  readonly clock = new FakeClock('2026-11-23T12:34:56.500Z');
  readonly memory: DmaMemory;
  readonly events: string[] = [];
  /** The pulses of each edge-triggered interrupt. */
  readonly pulses = new Map<number, number>();
  readonly doorbells: { readonly gpa: number; readonly queue: number; readonly rung: () => void }[] = [];
  readonly watches: {
    fd: number;
    events: { readonly read: boolean; readonly write: boolean };
    ready: () => void;
  }[] = [];
  readonly timers: FakeTimer[] = [];
  /** How many accesses wait for their end. */
  heldAccesses = 0;
  console = '';

  constructor(memory = untouchedMemory(256 << 20)) {
    this.memory = memory;
  }

  edgeIrq(gsi: number): EdgeIrq {
    return { pulse: () => this.pulses.set(gsi, (this.pulses.get(gsi) ?? 0) + 1) };
  }

  onDoorbell(gpa: number, queue: number, rung: () => void): void {
    this.doorbells.push({ gpa, queue, rung });
  }

  watch(fd: number, events: { readonly read: boolean; readonly write: boolean }, ready: () => void): Watch {
    const watch = { fd, events, ready };
    this.watches.push(watch);
    return {
      set: (changed) => {
        watch.events = changed;
      },
      end: () => this.watches.splice(this.watches.indexOf(watch), 1),
    };
  }

  timer(due: () => void): Timer {
    const timer = new FakeTimer(due);
    this.timers.push(timer);
    return timer;
  }

  holdAccess(): { release(): void } {
    this.heldAccesses++;
    return { release: () => this.heldAccesses-- };
  }

  log(line: string): void {
    this.events.push(line);
  }

  irqLine(irq: number): FakeIrq {
    const line = this.irqs.get(irq) ?? new FakeIrq();
    this.irqs.set(irq, line);
    return line;
  }

  onConsoleOutput(bytes: Uint8Array): void {
    this.console += Buffer.from(bytes).toString('latin1');
  }

  onConsoleDrained(): void {
    this.events.push('drained');
  }

  onReset(): void {
    this.events.push('reset');
  }

  onPowerOff(): void {
    this.events.push('powerOff');
  }
}
