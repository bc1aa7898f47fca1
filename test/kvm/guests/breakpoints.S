/*
 * Executes int3 again and again and checks that each one reaches its handler. The first byte of console input decides
 * where: `u` in ring 3, `k` in ring 0. A line `.` comes after every few, and `L` when one was lost.
 *
 * r12 counts the instructions, r13 the calls of the handler.
 */
#include "guest.inc"
.set USER, 3
.set BATCH, 1000

  BEGIN
  mov $0x20, %ecx          /* CR4.PAE */
  mov %rcx, %cr4
  mov $pml4, %ecx
  mov %rcx, %cr3
  mov $stack, %esp
  lgdt gdt_pointer
  lidt idt_pointer
  xor %r12d, %r12d
  xor %r13d, %r13d
  pushq $0x08
  pushq $1f
  lretq
1:
  mov $0x10, %ecx
  mov %ecx, %ss
  mov $BATCH, %r15d
  cmp $'k', %al
  je kernel
  mov $0x28, %ecx
  ltr %cx
  pushq $0x23
  pushq $user_stack
  pushq $0x002
  pushq $0x1b
  pushq $count
  iretq
kernel:
  mov $8, %r15d            /* each is an exit where KVM emulates ring 0 */

count:
  mov %r15d, %ebx
2:
  inc %r12
  int3
  cmp %r12, %r13
  jne lost
  dec %ebx
  jnz 2b
  mov $'.', %r14d
  jmp tell
lost:
  mov $'L', %r14d
tell:
  mov %r12, %r13
  int3                     /* prints r14b and clears it */
  test %r14d, %r14d
  jnz tell                 /* this one was lost */
  jmp count

breakpoint:
  test %r14d, %r14d
  jnz 3f
  inc %r13
  iretq
3:
  mov $COM1, %edx
  mov %r14d, %eax
  out %al, %dx
  mov $'\n', %al
  out %al, %dx
  xor %r14d, %r14d
  iretq

.balign 16
gdt:
  .quad 0
  .quad 0x00af9b000000ffff
  .quad 0x00cf93000000ffff
  .quad 0x00affb000000ffff
  .quad 0x00cff3000000ffff
  .word 103, (tss - _start) & 0xffff
  .byte 0x20 + ((tss - _start) >> 16), 0x89, 0, 0
  .quad 0
gdt_end:
.balign 8
idt:
  .quad 0, 0, 0, 0, 0, 0
  .word breakpoint - _start, 0x08
  .byte 0, 0xee
  .word 0x20
  .quad 0
idt_end:
.balign 8
  .skip 6
gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt
  .skip 6
idt_pointer:
  .word idt_end - idt - 1
  .quad idt
tss:
  .long 0
  .quad stack
  .skip 90
  .word 104

/* The first 4 MiB, identity-mapped in pages of ring 3. */
.balign 4096
pml4:
  .quad pdpt + 7
  .skip 4088
pdpt:
  .quad directory + 7
  .skip 4088
directory:
  .quad 0x87, 0x200087
  .skip 4080
  .skip 4096
stack:
  .skip 4096
user_stack:
