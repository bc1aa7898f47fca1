/**
 * What the boot processor must hold when it executes the kernel's first instruction: plain data, from which the KVM
 * side makes KVM_SET_SREGS and KVM_SET_REGS. Linux boot protocol, "64-bit Boot Protocol".
 *
 * Everything not named here (TR, LDTR, debug registers, MSRs, APIC) stays as KVM resets it; general registers not
 * named are 0. The other processors wait for INIT and SIPI.
 */

/** Which of the ways into the kernel a machine was booted by. */
export type BootPath = 'elf' | 'bzimage payload (gzip)' | 'bzimage payload (lz4)' | 'bzimage own entry';

/** The fields of struct kvm_segment, by its names. */
export interface SegmentState {
  readonly base: bigint;
  readonly limit: number;
  readonly selector: number;
  readonly type: number;
  readonly present: number;
  readonly dpl: number;
  readonly db: number;
  readonly s: number;
  readonly l: number;
  readonly g: number;
  readonly avl: number;
}

export interface TableState {
  readonly base: bigint;
  readonly limit: number;
}

export interface BootState {
  readonly path: BootPath;
  readonly rip: bigint;
  readonly rsp: bigint;
  /** Address of struct boot_params. */
  readonly rsi: bigint;
  readonly rflags: bigint;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly cs: SegmentState;
  /** DS, ES, FS, GS and SS alike. */
  readonly data: SegmentState;
  readonly gdt: TableState;
  readonly idt: TableState;
}
