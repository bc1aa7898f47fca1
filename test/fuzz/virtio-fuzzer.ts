/**
 * A hostile guest: it mutates descriptors, rings, registers and saved states of a virtio device. The device may refuse
 * whatever it wants, but it never throws, never hangs, never touches anything but RAM, and can always be reset.
 */
import assert from 'node:assert/strict';
import { LivesnapError } from '../../src/errors.js';
import { SchemaError } from '../../src/schema.js';
import { Register } from '../../src/vmm/virtio/mmio-transport.js';
import type { OpenSubject, VirtioSubject } from '../contract/virtio/subjects.js';
import { random } from '../unit/vmm/seeded-random.js';
import { DriverTwin, RAM_BYTES, type SavedRig, VirtioRig } from '../unit/vmm/virtio/driver-twin.js';
import { PlainRam } from '../unit/vmm/virtio/plain-ram.js';
import { CheckedRam } from './checked-ram.js';

const REGISTERS = Object.values(Register);
const SIZES = [1, 2, 4] as const;
/** More turns than the work of any device needs before a reset ends. */
const RESET_TURNS = 10_000;
/** How seldom a mutation is a save and a restore, which copy the RAM. */
const RESTORE_PERIOD = 2_000;

export class VirtioFuzzer {
  readonly #below: (n: number) => number;
  readonly #subject: OpenSubject;
  #rig: VirtioRig;
  #checked!: CheckedRam;
  #driver!: DriverTwin;
  /** What happened, so that a run can show that it did not only bounce off the first check. */
  readonly counts = { mutations: 0, starts: 0, violations: 0, interrupts: 0, restores: 0, refusedStates: 0 };

  private constructor(subject: OpenSubject, seed: number) {
    this.#below = random(seed);
    this.#subject = subject;
    // Two slots, so that a range may begin in one and end beyond it.
    const ram = new PlainRam([
      { gpa: 0, sizeBytes: RAM_BYTES },
      { gpa: 2 ** 32, sizeBytes: 1 << 20 },
    ]);
    this.#checked = new CheckedRam(ram.ram);
    this.#rig = VirtioRig.start(subject.descriptor(), ram, this.#checked);
  }

  static async open(subject: VirtioSubject, seed: number): Promise<VirtioFuzzer> {
    const fuzzer = new VirtioFuzzer(subject.open(), seed);
    await fuzzer.#restart();
    return fuzzer;
  }

  /** Makes `count` mutations. Throws at the first thing that a device must not do. */
  async run(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      this.counts.mutations++;
      this.#checked.begin();
      await this.#mutate();
    }
  }

  close(): void {
    this.#rig.close();
    this.#subject.close();
  }

  #one<T>(items: readonly T[]): T {
    return items[Math.floor(this.#below(items.length))]!;
  }

  /** Often a value at a limit, else any of 32 bits. */
  #value(): number {
    return this.#below(2) < 1
      ? this.#one([
          0, 1, 2, 3, 7, 8, 15, 16, 17, 0xff, 0xfff, 0x1000, 0x7fff, 0x8000, 0xffff, 0xffff_ffff, 0x7f_ffff,
        ])
      : Math.floor(this.#below(2 ** 32));
  }

  async #mutate(): Promise<void> {
    const rig = this.#rig;
    const queue = this.#one(this.#driver.queues);
    switch (Math.floor(this.#below(12))) {
      case 0:
      case 1:
        if (queue.canOffer) {
          queue.offer(this.#subject.request(this.#below));
          rig.ring(this.#driver.queues.indexOf(queue));
        }
        break;
      case 2:
        rig.hear();
        break;
      case 3:
        await this.#subject.work(rig, this.#below);
        break;
      case 4:
        this.#mutateDescriptor(queue.descriptorTable + Math.floor(this.#below(queue.size)) * 16);
        break;
      case 5:
        // A buffer may hold an indirect table, or a header that the device reads.
        this.#mutateDescriptor(0x20_0000 + Math.floor(this.#below(512)) * 0x1000);
        break;
      case 6:
        this.#put16(queue.availRing + 4 + Math.floor(this.#below(queue.size + 1)) * 2);
        break;
      case 7:
        if (this.#below(4) < 1) this.#put16(queue.availRing + 2 * Math.floor(this.#below(2)));
        else queue.makeAvailable(Math.floor(this.#below(queue.size)));
        rig.ring(this.#driver.queues.indexOf(queue));
        break;
      case 8:
        this.#put16(queue.usedRing + 2 * Math.floor(this.#below(2 + queue.size * 4 + 1)));
        break;
      case 9:
        this.#access();
        break;
      case 10:
        if (rig.takeInterrupt()) this.counts.interrupts++;
        rig.write(Register.interruptAck, rig.read(Register.interruptStatus));
        if (rig.read(Register.status) & 0x40) {
          this.counts.violations++;
          await this.#restart();
        } else if (this.#below(200) < 1) await this.#restart();
        break;
      case 11:
        if (this.#below(RESTORE_PERIOD) < 12) this.#restore();
        else if (this.#below(50) < 1) {
          rig.pause();
          rig.resume();
        }
    }
    assert(rig.read(Register.magicValue) === 0x74726976);
    rig.machine.events.length = 0;
  }

  #put16(gpa: number): void {
    this.#rig.ram.ram.store16(gpa, this.#value() & 0xffff);
  }

  /** One field of a descriptor, mostly with a value that leads on. */
  #mutateDescriptor(gpa: number): void {
    const { ram } = this.#rig.ram;
    const bytes = Buffer.alloc(16);
    ram.read(gpa, bytes);
    switch (Math.floor(this.#below(4))) {
      case 0:
        bytes.writeUInt32LE(
          this.#below(2) < 1 ? 0x20_0000 + Math.floor(this.#below(0x20_0000)) : this.#value(),
          0,
        );
        bytes.writeUInt32LE(this.#one([0, 0, 0, 1, this.#value()]), 4);
        break;
      case 1:
        bytes.writeUInt32LE(this.#one([16, 32, 512, 4096, this.#value()]), 8);
        break;
      case 2:
        bytes.writeUInt16LE(this.#one([0, 1, 2, 3, 4, 5, 6, this.#value() & 0xffff]), 12);
        break;
      case 3:
        bytes.writeUInt16LE(this.#one([0, 1, 2, 3, 7, this.#value() & 0xffff]), 14);
    }
    ram.write(gpa, bytes);
  }

  /** Any access to the window. A write of 0 to the status, a reset, is left to {@link #restart}. */
  #access(): void {
    const offset =
      this.#below(2) < 1
        ? this.#one(REGISTERS) + Math.floor(this.#below(4)) * (this.#below(4) < 1 ? 1 : 0)
        : Math.floor(this.#below(0x200));
    const size = this.#one(SIZES);
    const value = (this.#value() & [0, 0xff, 0xffff, 0, 0xffff_ffff][size]!) >>> 0;
    if (this.#below(2) < 1) {
      const read = this.#rig.read(offset, size);
      assert(Number.isInteger(read) && read >= 0 && read < 2 ** (8 * size), `read ${read}`);
    } else if (offset !== Register.status || value !== 0) {
      this.#rig.write(offset, value, size);
    }
  }

  async #restart(): Promise<void> {
    const rig = this.#rig;
    rig.write(Register.status, 0);
    for (let turn = 0; rig.read(Register.status) !== 0; turn++) {
      assert(turn < RESET_TURNS, 'a reset does not end');
      await this.#subject.work(rig, this.#below);
    }
    assert.equal(rig.machine.heldAccesses, 0, 'the guest waits for a reset that has ended');
    rig.hear();
    this.#driver = new DriverTwin(rig, {
      eventIdx: this.#below(2) < 1,
      indirect: this.#below(4) < 3,
      queueSize: 2 ** (2 + Math.floor(this.#below(5))),
    });
    this.#driver.start(this.#subject.features);
    this.counts.starts++;
  }

  /** A restored machine goes on; a state that was changed is refused, or is as good as one that a guest can bring about. */
  #restore(): void {
    const rig = this.#rig;
    rig.pause();
    const saved = rig.save();
    const isChanged = this.#below(2) < 1;
    try {
      const restored = this.#restored(isChanged ? { ...saved, state: this.#changed(saved) } : saved);
      if (restored === null) {
        this.counts.refusedStates++;
        assert(isChanged, 'a state that a device saved is restored');
        rig.resume();
        return;
      }
      this.counts.restores++;
      this.#driver.moveTo(restored);
      this.#rig = restored;
      restored.resume();
      rig.close();
    } finally {
      saved.ram.close();
    }
  }

  #restored(saved: SavedRig): VirtioRig | null {
    let checked = this.#checked;
    try {
      const rig = VirtioRig.restore(saved, this.#subject.descriptor(), ({ ram }) => {
        checked = new CheckedRam(ram);
        return checked;
      });
      this.#checked = checked;
      return rig;
    } catch (error) {
      if (error instanceof SchemaError) return null;
      if (error instanceof LivesnapError && error.code === 'BAD_STATE') return null;
      throw error;
    }
  }

  /** The state with one of its values replaced. */
  #changed({ state }: SavedRig): SavedRig['state'] {
    const copy = structuredClone(state) as unknown as Record<string, unknown>;
    const places: { holder: Record<string, unknown>; key: string }[] = [];
    const collect = (holder: Record<string, unknown>): void => {
      for (const [key, value] of Object.entries(holder)) {
        if (typeof value === 'object' && value !== null) collect(value as Record<string, unknown>);
        else places.push({ holder, key });
      }
    };
    collect(copy);
    const { holder, key } = this.#one(places);
    const value = holder[key];
    if (typeof value === 'number') holder[key] = this.#one([this.#value(), value + 1, -1, 0.5, null]);
    else if (typeof value === 'boolean') holder[key] = !value;
    else holder[key] = this.#one([`0x${this.#value().toString(16)}`, '0xffffffffffffffff', '', 1, null]);
    return copy as unknown as SavedRig['state'];
  }
}
