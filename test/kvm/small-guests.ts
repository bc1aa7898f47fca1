/** Guests of a few instructions, as ELF kernels, that end early or write a lot. */
import { writeFileSync } from 'node:fs';
import { elfKernel } from '../unit/vmm/boot/kernel-fixtures.js';

/** Machine code that writes `text` to the first serial port, then runs `then`; `data` follows `then`. */
function writer(text: Uint8Array, then: Buffer): Buffer {
  const head = Buffer.from('fafc' + 'baf8030000' + '488d3500000000' + 'b900000000' + 'f36e', 'hex');
  const afterLea = 14;
  head.writeInt32LE(head.length + then.length - afterLea, 10); // lea text(%rip), %rsi
  head.writeUInt32LE(text.length, 15); // mov $length, %ecx
  return Buffer.concat([head, then, text]);
}

const write = (path: string, code: Buffer): string => {
  writeFileSync(path, elfKernel({ segments: [{ bytes: code }] }));
  return path;
};

/** The last instructions of a guest, by the kind of its end. */
const ENDINGS = {
  // lidt of ten zeros behind ud2, then ud2
  reset: `0f011d020000000f0b${'00'.repeat(10)}`,
  // mov $0xc0000000, %eax; jmp *%rax
  failed: 'b8000000c0ffe0',
} as const;

/** Writes `text` and ends the machine at once by a triple fault. Returns `path`. */
export const guestThatEnds = (path: string, text: string): string =>
  write(path, writer(Buffer.from(text), Buffer.from(ENDINGS.reset, 'hex')));

/** Writes `text` and ends at an exit that KVM cannot complete: a jump to memory that nothing answers. */
export const guestThatFails = (path: string, text: string): string =>
  write(path, writer(Buffer.from(text), Buffer.from(ENDINGS.failed, 'hex')));

/**
 * Runs popcnt, which KVM's instruction emulator lacks and a processor runs, and then ends by a triple fault. Returns
 * `path`.
 */
export const guestThatCounts = (path: string): string =>
  // popcnt %rbx, %rax; ud2
  write(path, Buffer.from('f3480fb8c3' + '0f0b', 'hex'));

/** Writes `ready` and a line end, waits for a byte of input, and then ends. Returns `path`. */
export const guestThatWaits = (path: string, end: keyof typeof ENDINGS): string => {
  const wait =
    'bafc030000b001ee' + // out DTR to the modem control register
    'ffc2' + // inc %edx: the line status register
    'eca80174fb'; // wait: in (%dx), %al; test $1, %al; jz wait
  return write(path, writer(Buffer.from('ready\n'), Buffer.from(wait + ENDINGS[end], 'hex')));
};

/**
 * Counts in the first bytes of every page from `startGpa` to `endGpa`, one after another, again and again. After each
 * round it writes the end of a line.
 */
export const guestThatSweeps = (path: string, startGpa: number, endGpa: number): string => {
  const code = Buffer.from(
    'fafc' +
      'bb01000000' + // mov $1, %ebx
      'bf00000000' + // round: mov $start, %edi
      '48891f' + // page: mov %rbx, (%rdi)
      '4881c700100000' + // add $4096, %rdi
      '4881ff00000000' + // cmp $end, %rdi
      '72ed' + // jb page
      'ffc3' + // inc %ebx
      'baf8030000b00aee' + // out '\n'
      'ebdc', // jmp round
    'hex',
  );
  code.writeUInt32LE(startGpa, 8);
  code.writeUInt32LE(endGpa, 25);
  return write(path, code);
};

/** Writes 4096 line ends again and again, as fast as it can. */
export const guestThatFloods = (path: string): string => {
  const jump = Buffer.from('e900000000', 'hex');
  // Back to the first instruction: 21 bytes of writer() and the jump itself.
  jump.writeInt32LE(-(21 + jump.length), 1);
  return write(path, writer(Buffer.alloc(4096, '\n'), jump));
};
