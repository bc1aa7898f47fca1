/** Everything that devices use of the machine around them, under a test's control. */
import type { DeviceParts, IrqLine, WallClock } from '../../../../src/vmm/devices/device.js';
import type { GuestMemory } from '../../../../src/vmm/memory/guest-memory.js';

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

/** RAM of the given layout for devices that only ask how large it is. */
const untouchedMemory = (sizeBytes: number): GuestMemory => ({
  layout: [{ gpa: 0, sizeBytes }],
  read(gpa) {
    throw new Error(`a read of guest memory at ${gpa}`);
  },
  write(gpa) {
    throw new Error(`a write of guest memory at ${gpa}`);
  },
});

/** A machine around devices that records what happens to it. */
export class FakeMachine implements DeviceParts {
  readonly irqs = new Map<number, FakeIrq>();
  readonly clock = new FakeClock('2026-11-23T12:34:56.500Z');
  readonly memory = untouchedMemory(256 << 20);
  readonly events: string[] = [];
  console = '';

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
