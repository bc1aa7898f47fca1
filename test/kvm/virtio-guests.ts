/** Guests of a few instructions that drive a virtio device, as ELF kernels. */
import { writeFileSync } from 'node:fs';
import { Register } from '../../src/vmm/virtio/mmio-transport.js';
import { virtioWindows } from '../../src/vmm/virtio/windows.js';
import { elfKernel } from '../unit/vmm/boot/kernel-fixtures.js';

const WINDOW = virtioWindows(1)[0]!;
const IOAPIC = 0xfec0_0000;
const LAPIC = 0xfee0_0000;
const DESCRIPTORS = 0x30_0000;
const AVAIL = 0x30_1000;
const USED = 0x30_2000;
const ANSWER = 0x30_3000;
const FIRST_VECTOR = 0x40;

/** What is written where before the guest takes commands: 32 bits each. */
const SETUP: readonly (readonly [gpa: number, value: number])[] = [
  // The local APIC is on; the pin of the device is unmasked, edge-triggered.
  [LAPIC + 0xf0, 0x1ff],
  [IOAPIC, 0x11 + 2 * WINDOW.gsi],
  [IOAPIC + 0x10, 0],
  [IOAPIC, 0x10 + 2 * WINDOW.gsi],
  [IOAPIC + 0x10, FIRST_VECTOR],
  // One descriptor: 32 bytes for the device to write.
  [DESCRIPTORS, ANSWER],
  [DESCRIPTORS + 8, 32],
  [DESCRIPTORS + 12, 2],
  // Virtio 1.2, section 3.1.1, without any feature but VERSION_1.
  ...(
    [
      [Register.status, 0],
      [Register.status, 1],
      [Register.status, 3],
      [Register.driverFeaturesSel, 1],
      [Register.driverFeatures, 1],
      [Register.status, 11],
      [Register.queueSel, 0],
      [Register.queueNum, 8],
      [Register.queueDescLow, DESCRIPTORS],
      [Register.queueDriverLow, AVAIL],
      [Register.queueDeviceLow, USED],
      [Register.queueReady, 1],
      [Register.status, 15],
    ] as const
  ).map(([register, value]) => [WINDOW.gpa + register, value] as const),
  [0, 0],
];

/**
 * Asks the entropy device for 32 bytes at each byte of console input. It writes that byte when the request is in the ring,
 * and the answer in the letters a to p and a line end. After `n` it does not ring the doorbell. It waits for the interrupt, which is off in the processor: it looks for
 * the vector among the local APIC's requests. Each interrupt has a vector of its own. Returns `path`.
 */
export const guestThatAsksForRandom = (path: string): string => {
  const code = Buffer.from(
    'fafc' +
      '488d3500000000' + // lea table(%rip), %rsi
      'ad89c785ff7405ad8907ebf4' + // setup: lodsl to %edi; until it is 0: lodsl, and store that at (%rdi)
      `bb${FIRST_VECTOR.toString(16)}000000` + // mov $vector, %ebx
      '4531c0' + // xor %r8d, %r8d: the avail index
      'bafc030000b001ee' + // out DTR to the modem control register
      'bafd030000' + // command: the line status register
      'eca80174fb' + // wait: in (%dx), %al; test $1, %al; jz wait
      'baf8030000ec88c1' + // in (%dx), %al; mov %al, %cl
      '41ffc0bf02103000' + // inc %r8d; mov $avail index, %edi
      '66448907ee' + // mov %r8w, (%rdi); out %al, (%dx): the command again
      '80f96e740b' + // cmp $'n', %cl; je await
      'bf500000d0c70700000000' + // QueueNotify = 0
      '89d8c1e805c1e004' + // await: the offset of the vector's request register
      'bf0002e0fe01c7' + // mov $LAPIC + 0x200, %edi; add %eax, %edi
      '8b070fa3d873f9' + // spin: mov (%rdi), %eax; bt %ebx, %eax; jnc spin
      'bf600000d08b07894704' + // InterruptACK = InterruptStatus
      'ffc3' + // inc %ebx: the next vector, for the pin
      'bf0000c0fec7071a000000895f10' +
      'bf0220300066443907' + // mov $used index, %edi; cmp %r8w, (%rdi)
      '75c5' + // jne await: an interrupt after a restore
      'be00303000b920000000' + // mov $answer, %esi; mov $32, %ecx
      'ac88c4c0e8040461ee' + // next: lodsb; the high half as a letter
      '88e0240f0461ee' + // the low half
      'ffc975ec' + // dec %ecx; jnz next
      'b00aee' + // the end of the line
      'e900000000', // jmp command
    'hex',
  );
  const afterLea = 9;
  const command = code.indexOf(Buffer.from('bafd030000', 'hex'));
  code.writeInt32LE(code.length - afterLea, 5);
  code.writeInt32LE(command - code.length, code.length - 4);
  const table = Buffer.alloc(SETUP.length * 8);
  SETUP.forEach(([gpa, value], i) => {
    table.writeUInt32LE(gpa, i * 8);
    table.writeUInt32LE(value, i * 8 + 4);
  });
  writeFileSync(path, elfKernel({ segments: [{ bytes: Buffer.concat([code, table]) }] }));
  return path;
};

/** Writes 1 and then 2, of 4 bytes each, to `gpa` again and again. Returns `path`. */
export const guestThatRings = (path: string, gpa: number): string => {
  // mov $gpa, %edi; again: movl $1, (%rdi); movl $2, (%rdi); jmp again
  const code = Buffer.from('bf00000000c70701000000c70702000000ebf2', 'hex');
  code.writeUInt32LE(gpa, 1);
  writeFileSync(path, elfKernel({ segments: [{ bytes: code }] }));
  return path;
};
