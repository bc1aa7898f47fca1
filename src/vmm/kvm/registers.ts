/** struct kvm_regs and struct kvm_sregs (arch/x86/include/uapi/asm/kvm.h), field by field. */
import { type Fields, readStruct, type Struct, sizeOf, writeStruct } from './struct.js';

export const REGS = {
  rax: 8,
  rbx: 8,
  rcx: 8,
  rdx: 8,
  rsi: 8,
  rdi: 8,
  rsp: 8,
  rbp: 8,
  r8: 8,
  r9: 8,
  r10: 8,
  r11: 8,
  r12: 8,
  r13: 8,
  r14: 8,
  r15: 8,
  rip: 8,
  rflags: 8,
} as const satisfies Fields;
export type Regs = Struct<typeof REGS>;

export const SEGMENT = {
  base: 8,
  limit: 4,
  selector: 2,
  type: 1,
  present: 1,
  dpl: 1,
  db: 1,
  s: 1,
  l: 1,
  g: 1,
  avl: 1,
  unusable: 1,
  padding: 1,
} as const satisfies Fields;
export type Segment = Struct<typeof SEGMENT>;

export const DESCRIPTOR_TABLE = {
  base: 8,
  limit: 2,
  padding0: 2,
  padding1: 2,
  padding2: 2,
} as const satisfies Fields;
export type DescriptorTable = Struct<typeof DESCRIPTOR_TABLE>;

export const CONTROL = {
  cr0: 8,
  cr2: 8,
  cr3: 8,
  cr4: 8,
  cr8: 8,
  efer: 8,
  apicBase: 8,
  interruptBitmap0: 8,
  interruptBitmap1: 8,
  interruptBitmap2: 8,
  interruptBitmap3: 8,
} as const satisfies Fields;
export type Control = Struct<typeof CONTROL>;

export const SEGMENT_NAMES = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
export const TABLE_NAMES = ['gdt', 'idt'] as const;

export interface Sregs {
  readonly segments: Record<(typeof SEGMENT_NAMES)[number], Segment>;
  readonly tables: Record<(typeof TABLE_NAMES)[number], DescriptorTable>;
  readonly control: Control;
}

export const REGS_BYTES = sizeOf(REGS);
export const SREGS_BYTES =
  SEGMENT_NAMES.length * sizeOf(SEGMENT) + TABLE_NAMES.length * sizeOf(DESCRIPTOR_TABLE) + sizeOf(CONTROL);

/** Visits the parts of struct kvm_sregs, in order, with the offset of each. */
function forEachPart(
  visit: (kind: 'segment' | 'table' | 'control', name: string, offset: number) => void,
): void {
  let at = 0;
  for (const name of SEGMENT_NAMES) {
    visit('segment', name, at);
    at += sizeOf(SEGMENT);
  }
  for (const name of TABLE_NAMES) {
    visit('table', name, at);
    at += sizeOf(DESCRIPTOR_TABLE);
  }
  visit('control', 'control', at);
}

export function decodeSregs(bytes: Uint8Array): Sregs {
  const sregs = { segments: {}, tables: {}, control: {} } as { -readonly [K in keyof Sregs]: Sregs[K] };
  forEachPart((kind, name, at) => {
    if (kind === 'segment') sregs.segments[name as 'cs'] = readStruct(SEGMENT, bytes, at);
    else if (kind === 'table') sregs.tables[name as 'gdt'] = readStruct(DESCRIPTOR_TABLE, bytes, at);
    else sregs.control = readStruct(CONTROL, bytes, at);
  });
  return sregs;
}

export function encodeSregs(sregs: Sregs): Uint8Array {
  const bytes = new Uint8Array(SREGS_BYTES);
  forEachPart((kind, name, at) => {
    if (kind === 'segment') writeStruct(SEGMENT, sregs.segments[name as 'cs'], bytes, at);
    else if (kind === 'table') writeStruct(DESCRIPTOR_TABLE, sregs.tables[name as 'gdt'], bytes, at);
    else writeStruct(CONTROL, sregs.control, bytes, at);
  });
  return bytes;
}
