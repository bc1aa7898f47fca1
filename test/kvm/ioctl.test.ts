/** The addon's ioctls on a real KVM. A buffer that is too short for the kernel's reads or writes is refused. */
import assert from 'node:assert/strict';
import {
  addVcpu,
  closeMachine,
  createMachine,
  type KvmMachine,
  kvmIoctl,
  machineIoctl,
  vcpuIoctl,
  xsaveSizeBytes,
} from '../../src/native/kvm.js';
import { Ioctl, Msr } from '../../src/vmm/kvm/abi.js';
import { supportedCpuid } from '../../src/vmm/kvm/cpuid.js';
import { getMsrs, setCpuid, setMsrs } from '../../src/vmm/kvm/vcpu-state.js';
import { requireKvm } from './kvm.js';

const _IOWR = 3;
const request = (direction: number, number: number, sizeBytes: number): number =>
  ((direction << 30) | (sizeBytes << 16) | (0xae << 8) | number) >>> 0;

describe('an ioctl of KVM', () => {
  let machine: KvmMachine;
  let vcpu: number;
  before(function () {
    requireKvm(this);
    machine = createMachine();
    machineIoctl(machine, Ioctl.CREATE_IRQCHIP, 0);
    vcpu = addVcpu(machine);
    setCpuid(machine, vcpu, supportedCpuid());
  });
  after(() => {
    if (machine !== undefined) closeMachine(machine);
  });

  const onSystem = (number: number, bytes: Uint8Array): number => kvmIoctl(number, bytes);
  const onVm = (number: number, bytes: Uint8Array): number => machineIoctl(machine, number, bytes);
  const onVcpu = (number: number, bytes: Uint8Array): number => vcpuIoctl(machine, vcpu, number, bytes);

  /** Name, target, number, size of the head, size of an entry. */
  const counted: [string, typeof onVm, number, number, number][] = [
    ['GET_MSR_INDEX_LIST', onSystem, Ioctl.GET_MSR_INDEX_LIST, 4, 4],
    ['GET_MSR_FEATURE_INDEX_LIST', onSystem, request(_IOWR, 0x0a, 4), 4, 4],
    ['GET_SUPPORTED_CPUID', onSystem, Ioctl.GET_SUPPORTED_CPUID, 8, 40],
    ['GET_EMULATED_CPUID', onSystem, request(_IOWR, 0x09, 8), 8, 40],
    ['GET_MSRS of features', onSystem, Ioctl.GET_MSRS, 8, 16],
    ['SET_GSI_ROUTING', onVm, request(1, 0x6a, 8), 8, 48],
    ['GET_MSRS', onVcpu, Ioctl.GET_MSRS, 8, 16],
    ['SET_MSRS', onVcpu, Ioctl.SET_MSRS, 8, 16],
    ['GET_CPUID2', onVcpu, Ioctl.GET_CPUID2, 8, 40],
    ['SET_CPUID2', onVcpu, Ioctl.SET_CPUID2, 8, 40],
  ];
  for (const [name, ioctl, number, head, entry] of counted) {
    it(`${name} refuses a buffer that is too short for its count`, () => {
      for (const [count, length] of [
        [0, head - 1],
        [1, head],
        [1, head + entry - 1],
        [200, head + 199 * entry],
        [200, head],
        [0xffff_ffff, head + 200 * entry],
        [0, 0],
      ] as const) {
        const bytes = new Uint8Array(length);
        if (length >= 4) new DataView(bytes.buffer).setUint32(0, count, true);
        assert.throws(
          () => ioctl(number, bytes),
          { name: 'TypeError', message: /too short/ },
          `${length} bytes for ${count} entries`,
        );
      }
    });
  }

  for (const [name, number] of [
    ['GET_XSAVE', Ioctl.GET_XSAVE],
    ['SET_XSAVE', Ioctl.SET_XSAVE],
    ['GET_XSAVE2', Ioctl.GET_XSAVE2],
  ] as const) {
    it(`${name} refuses a buffer that is shorter than the host's XSAVE area`, () => {
      for (const length of [0, 576, 4095, xsaveSizeBytes(machine) - 1]) {
        assert.throws(() => onVcpu(number, new Uint8Array(length)), { message: /too short/ }, `${length}`);
      }
    });
  }

  it('of a fixed size refuses a shorter buffer', () => {
    for (const [ioctl, number, size] of [
      [onVcpu, Ioctl.GET_REGS, 144],
      [onVcpu, Ioctl.GET_LAPIC, 1024],
      [onVcpu, Ioctl.GET_XCRS, 392],
      [onVm, Ioctl.GET_PIT2, 112],
      [onVm, Ioctl.GET_IRQCHIP, 520],
    ] as const) {
      assert.throws(() => ioctl(number, new Uint8Array(size - 1)), { message: /too short/ });
    }
  });

  it('whose argument has pointers is refused', () => {
    for (const [ioctl, number] of [
      [onVm, request(1, 0x42, 16)], // GET_DIRTY_LOG
      [onVm, request(1, 0x46, 32)], // SET_USER_MEMORY_REGION
      [onVm, request(1, 0x49, 160)], // SET_USER_MEMORY_REGION2
      [onVm, request(_IOWR, 0xc0, 24)], // CLEAR_DIRTY_LOG
      [onVcpu, request(1, 0xab, 16)], // GET_ONE_REG
      [onVcpu, request(_IOWR, 0xbe, 128)], // GET_NESTED_STATE
    ] as const) {
      assert.throws(() => ioctl(number, new Uint8Array(4096)), { message: /not made from TypeScript/ });
    }
  });

  it('for MSRs takes more of them than KVM takes in one call', () => {
    const indices = Array.from({ length: 600 }, () => Msr.IA32_TSC);
    const read = getMsrs(machine, vcpu, indices);
    assert.deepEqual(
      read.map(({ index }) => index),
      indices,
    );
    const sysenter = Array.from({ length: 600 }, (_, i) => ({ index: 0x175 + (i & 1), value: BigInt(i) }));
    setMsrs(machine, vcpu, sysenter);
    assert.deepEqual(getMsrs(machine, vcpu, [0x175, 0x176]), [
      { index: 0x175, value: 598n },
      { index: 0x176, value: 599n },
    ]);
  });

  it('for MSRs finds one that the processor lacks at any place in the list', () => {
    const missing = 0xdead_0000;
    for (const at of [0, 1, 253, 254, 255, 256, 299]) {
      const indices = Array.from({ length: 300 }, (_, i) => (i === at ? missing : 0x175));
      assert.equal(getMsrs(machine, vcpu, indices).length, 299, `at ${at}`);
      assert.throws(
        () =>
          setMsrs(
            machine,
            vcpu,
            indices.map((index) => ({ index, value: 0n })),
          ),
        { code: 'HOST_LACKS', message: /MSR 0xdead0000/ },
      );
    }
  });
});
