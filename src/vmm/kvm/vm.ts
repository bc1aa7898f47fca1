/**
 * Makes a KVM machine: the VM with its interrupt controllers and PIT, RAM in its slots, and vCPUs. The vCPUs are set up
 * to enter a kernel, or restored.
 *
 * Thread: the device thread.
 */

import { LivesnapError, SystemError } from '../../errors.js';
import {
  addVcpu,
  closeMachine,
  createMachine,
  type KvmMachine,
  prepareMachine,
  setMemorySlot,
  type VmRecipe,
} from '../../native/kvm.js';
import type { MemoryHandle } from '../../native/memory.js';
import type { BootState } from '../boot/boot-state.js';
import { applyTemplate, applyTemplateToMsrs, requireTaken, TEMPLATE_MSRS } from '../fit/cpu-templates.js';
import type { CpuTemplate } from '../machine-types.js';
import { Capability, IDENTITY_MAP_ADDRESS, Ioctl, MSR_EXIT_REASON_FILTER, Msr, TSS_ADDRESS } from './abi.js';
import { type CpuidEntry, guestCpuid, supportedCpuid } from './cpuid.js';
import type { ElapsedTime } from './guest-time.js';
import { describeHost, type HostKvm } from './host.js';
import {
  getCpuid,
  getMsrs,
  getRegs,
  getSregs,
  restoreVcpus,
  setCpuid,
  setMsrs,
  setRegs,
  setSregs,
  type VcpuState,
} from './vcpu-state.js';
import { restoreVm, type VmState } from './vm-state.js';

/** A range of guest RAM. Slot `i` of a list is KVM's slot `i`. */
export interface MemorySlot {
  readonly gpa: number;
  readonly sizeBytes: number;
  readonly memory: MemoryHandle;
  /** The pages that livesnap itself wrote (memory/shared-bits.ts). */
  readonly written: SharedArrayBuffer;
}

/** KVM_PIT_SPEAKER_DUMMY: KVM handles port 0x61 as well. */
const PIT_SPEAKER_DUMMY = 1;

const words = (bytes: number, fields: readonly (readonly [at: number, value: number])[]): Uint8Array => {
  const view = new DataView(new ArrayBuffer(bytes));
  for (const [at, value] of fields) view.setBigUint64(at, BigInt(value), true);
  return new Uint8Array(view.buffer);
};

/** KVM_ENABLE_CAP: struct kvm_enable_cap with one argument. */
const enable = (capability: number, argument: number) =>
  [
    Ioctl.ENABLE_CAP,
    words(104, [
      [0, capability],
      [8, argument],
    ]),
  ] as const;

/** How the VM of every machine on this host is made, whatever the machine has. */
function vmRecipe(host: HostKvm): VmRecipe {
  const isPvm = host.kind === 'pvm';
  return {
    trappedMsr: isPvm ? Msr.IA32_TSC_DEADLINE : null,
    readsLog: true,
    steps: [
      [Ioctl.SET_TSS_ADDR, TSS_ADDRESS],
      [Ioctl.SET_IDENTITY_MAP_ADDR, words(8, [[0, IDENTITY_MAP_ADDRESS]])],
      [Ioctl.CREATE_IRQCHIP, 0],
      [Ioctl.CREATE_PIT2, words(64, [[0, PIT_SPEAKER_DUMMY]])],
      ...(isPvm
        ? [
            enable(Capability.EXIT_ON_EMULATION_FAILURE, 1),
            enable(Capability.X86_USER_SPACE_MSR, MSR_EXIT_REASON_FILTER),
          ]
        : []),
    ],
  };
}

/** Makes the VM of the next machine on a native thread, while this one goes on. Errors: NO_KVM. */
export const prepareVm = (): void => prepareMachine(vmRecipe(describeHost()));

/** Makes a VM with `cpus` vCPUs in their reset state. `logDirty`: KVM logs the guest's writes from the start. */
export function createVm(
  host: HostKvm,
  cpus: number,
  slots: readonly Pick<MemorySlot, 'gpa' | 'memory'>[],
  logDirty: boolean,
): KvmMachine {
  const machine = createMachine(vmRecipe(host));
  try {
    for (let i = 0; i < cpus; i++) addVcpu(machine);
    slots.forEach(({ gpa, memory }, slot) => {
      setMemorySlot(machine, slot, { gpa, memory, logDirty });
    });
    return machine;
  } catch (error) {
    closeMachine(machine);
    throw error;
  }
}

export interface KernelEntry {
  readonly cpus: number;
  readonly slots: readonly Pick<MemorySlot, 'gpa' | 'sizeBytes'>[];
  readonly boot: BootState;
  readonly cpuTemplate?: CpuTemplate | undefined;
}

/** The first address after RAM. */
const endOf = (slots: KernelEntry['slots']): number =>
  Math.max(...slots.map(({ gpa, sizeBytes }) => gpa + sizeBytes));

/** @throws LivesnapError HOST_LACKS when KVM keeps other values than those that were set */
function setTemplate(
  machine: KvmMachine,
  vcpu: number,
  template: CpuTemplate,
  cpuid: readonly CpuidEntry[],
): void {
  setCpuid(machine, vcpu, cpuid);
  const before = getMsrs(machine, vcpu, TEMPLATE_MSRS);
  const msrs = applyTemplateToMsrs(before);
  // A value that need not change is not written: some kernels refuse any write of an MSR that the guest's CPUID lacks.
  setMsrs(
    machine,
    vcpu,
    msrs.filter(({ value }, i) => value !== before[i]!.value),
  );
  requireTaken(
    template,
    { cpuid, msrs },
    { cpuid: getCpuid(machine, vcpu), msrs: getMsrs(machine, vcpu, TEMPLATE_MSRS) },
  );
}

/** Sets up the vCPUs to enter a loaded kernel, which starts all but the first. */
export function enterKernel(machine: KvmMachine, host: HostKvm, guest: KernelEntry): void {
  const { cpus, boot, slots, cpuTemplate } = guest;
  const supported = supportedCpuid();
  for (let vcpu = 0; vcpu < cpus; vcpu++) {
    const cpuid = guestCpuid(supported, vcpu, cpus, host);
    if (cpuTemplate === undefined) setCpuid(machine, vcpu, cpuid);
    else setTemplate(machine, vcpu, cpuTemplate, applyTemplate(cpuTemplate, cpuid, endOf(slots)));
  }
  const bootCpu = 0;
  const reset = getSregs(machine, bootCpu);
  const code = { ...boot.cs, unusable: 0, padding: 0 };
  const data = { ...boot.data, unusable: 0, padding: 0 };
  const table = ({ base, limit }: BootState['gdt']) => ({
    base,
    limit,
    padding0: 0,
    padding1: 0,
    padding2: 0,
  });
  setSregs(machine, bootCpu, {
    segments: { ...reset.segments, cs: code, ds: data, es: data, fs: data, gs: data, ss: data },
    tables: { gdt: table(boot.gdt), idt: table(boot.idt) },
    control: { ...reset.control, cr0: boot.cr0, cr3: boot.cr3, cr4: boot.cr4, efer: boot.efer },
  });
  const { rip, rsp, rsi, rflags } = boot;
  const zero = Object.fromEntries(Object.keys(getRegs(machine, bootCpu)).map((name) => [name, 0n]));
  setRegs(machine, bootCpu, { ...(zero as ReturnType<typeof getRegs>), rip, rsp, rsi, rflags });
}

/**
 * Restores a saved state into a fresh VM with as many vCPUs. RAM is filled before, devices are restored after.
 * @throws LivesnapError BAD_STATE when KVM refuses the state as impossible; HOST_LACKS
 */
export function restoreKvm(
  machine: KvmMachine,
  host: HostKvm,
  state: { readonly vcpus: readonly VcpuState[]; readonly vm: VmState },
  time: ElapsedTime,
): void {
  const { tscControl } = host;
  const { addedNs } = time;
  try {
    restoreVcpus(machine, state.vcpus, { tscControl, addedNs });
    restoreVm(machine, state.vm, time);
  } catch (error) {
    if (!(error instanceof SystemError && error.errnoName === 'EINVAL')) throw error;
    throw new LivesnapError('BAD_STATE', `KVM refused the saved state (${error.message})`, {
      hint: 'The snapshot is damaged, or needs a processor feature that this host lacks. Restore another snapshot, or use the host that saved it.',
      cause: error,
    });
  }
}
