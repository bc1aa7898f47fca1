import assert from 'node:assert/strict';
import { restoreTscs, type TscAccess } from '../../../../src/vmm/kvm/tsc.js';

const HZ = 2_000_000_000n;
const MS = HZ / 1000n;

/** KVM before Linux 6.8, as in kvm_synchronize_tsc: a write near the last one gets the offset of that one. */
class Kvm implements TscAccess {
  hostTicks = 700n * HZ;
  readonly offsets: bigint[];
  #lastWrite = 0n;
  #lastWriteAt = this.hostTicks;
  #offset = -this.hostTicks;

  constructor(cpus: number) {
    this.offsets = Array.from({ length: cpus }, () => this.#offset);
  }

  read(vcpu: number): bigint {
    this.hostTicks += 20n;
    return BigInt.asUintN(64, this.hostTicks + this.offsets[vcpu]!);
  }

  write(vcpu: number, ticks: bigint): void {
    this.hostTicks += 20n;
    const expected = this.#lastWrite + (this.hostTicks - this.#lastWriteAt);
    const isNear = ticks < expected + HZ && ticks + HZ > expected;
    if (!isNear) this.#offset = ticks - this.hostTicks;
    this.#lastWrite = ticks;
    this.#lastWriteAt = this.hostTicks;
    this.offsets[vcpu] = this.#offset;
  }
}

describe('restoreTscs', () => {
  it('gives all vCPUs one offset, though they were saved one after another', () => {
    const kvm = new Kvm(16);
    const saved = Array.from({ length: 16 }, (_, vcpu) => 90n * HZ + BigInt(vcpu) * 2n * MS);
    kvm.hostTicks += 50n * MS;
    assert.deepEqual(restoreTscs(kvm, saved), new Array(16).fill(0n));
    assert.equal(new Set(kvm.offsets).size, 1);
    const now = kvm.read(0);
    assert(now >= saved[0]! && now < saved[0]! + MS, `${now} continues from ${saved[0]}`);
  });

  it('continues the counter of a guest that was saved within its first second', () => {
    const kvm = new Kvm(2);
    kvm.hostTicks += 5n * MS;
    restoreTscs(kvm, [400n * MS, 401n * MS]);
    assert(kvm.read(0) >= 400n * MS, 'the counter does not go back to the age of the new VM');
    assert.equal(kvm.offsets[0], kvm.offsets[1]);
  });

  it('keeps counters that the guest set apart', () => {
    const kvm = new Kvm(2);
    restoreTscs(kvm, [90n * HZ, 20n * HZ]);
    const difference = kvm.offsets[0]! - kvm.offsets[1]!;
    assert(difference > 70n * HZ - MS && difference < 70n * HZ + MS);
  });

  it('tells by how much the counters are ahead where KVM ignores the writes', () => {
    let hostTicks = 1000n * HZ;
    const pvm: TscAccess = { read: () => ++hostTicks, write: () => {} };
    const [first, second] = restoreTscs(pvm, [990n * HZ, 990n * HZ + MS]);
    assert(first! >= 10n * HZ && first! < 10n * HZ + MS);
    assert(second! >= 10n * HZ - MS && second! < 10n * HZ);
  });

  it('counts modulo 2^64', () => {
    const kvm = new Kvm(1);
    const saved = 2n ** 64n - 5n;
    assert.deepEqual(restoreTscs(kvm, [saved]), [0n]);
    assert(BigInt.asUintN(64, kvm.read(0) - saved) < MS);
    assert.deepEqual(restoreTscs(kvm, []), []);
  });
});
