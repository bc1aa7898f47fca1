/*
 * Drives a block device at the second virtio window by commands on the console, and polls for the answers.
 *
 *   wBC   writes the block B ('a' is the first) with the character C
 *   sBC   writes the second sector of the block with C
 *   rB    reads the block, and prints its first byte and the first byte of its second sector
 *   lBC   writes the blocks B and B + 1 with the characters from C to 'z', again and again, until there is input
 *   q     resets the machine
 *   f     ends it at an exit that KVM cannot complete: a jump to memory that nothing answers
 *
 * Each answer begins with the status of the request and ends with a line end.
 */
#include "guest.inc"
.set WINDOW, 0xd0001000
.set DESCRIPTORS, 0x300000
.set AVAIL, 0x301000
.set USED, 0x302000
.set HEADER, 0x303000
.set STATUS, 0x303010
.set DATA, 0x304000
.set STACK, 0x310000

  BEGIN
  mov $STACK, %esp
  mov $WINDOW, %ebp
  lea table(%rip), %rsi
1: lodsl
  mov %eax, %edi
  test %edi, %edi
  jz 2f
  lodsl
  mov %eax, (%rdi)
  jmp 1b
2: xor %r8d, %r8d         /* the avail index */
  mov $'>', %al
  call put
  jmp finish

command:
  call get
  mov %al, %bl
  cmp $'q', %bl
  je reset
  cmp $'f', %bl
  je fail
  call get
  sub $'a', %al
  movzbl %al, %r9d
  shl $3, %r9d             /* the sector */
  cmp $'r', %bl
  je read
  call get
  mov %al, %r10b
  cmp $'l', %bl
  je load
  mov $4096, %r11d
  cmp $'w', %bl
  je 3f
  inc %r9d
  mov $512, %r11d
3: call write
  call putStatus
  jmp finish

read:
  movl $0, HEADER
  movl $4096, DESCRIPTORS + 16 + 8
  movw $3, DESCRIPTORS + 16 + 12
  call submit
  call putStatus
  mov DATA, %al
  call put
  mov DATA + 512, %al
  call put
finish:
  mov $'\n', %al
  call put
  jmp command

load:
  mov %r10b, %r12b
4: mov $4096, %r11d
  call write
  add $8, %r9d
  mov $4096, %r11d
  call write
  sub $8, %r9d
  inc %r10b
  cmp $'z', %r10b
  jbe 5f
  mov %r12b, %r10b
5: mov $COM1 + 5, %edx
  in %dx, %al
  test $1, %al
  jz 4b
  call putStatus
  jmp finish

reset:
  mov $0xfe, %al
  out %al, $0x64
6: jmp 6b

fail:
  mov $0xc0000000, %eax
  jmp *%rax

/* Writes r11d bytes of r10b at sector r9d. */
write:
  mov %r10b, %al
  mov $DATA, %edi
  mov $4096, %ecx
  rep stosb
  movl $1, HEADER
  mov %r11d, DESCRIPTORS + 16 + 8
  movw $1, DESCRIPTORS + 16 + 12
  /* falls through */

/* Sends the request and waits for its answer. */
submit:
  mov %r9d, HEADER + 8
  movb $0xff, STATUS
  inc %r8w
  mov %r8w, AVAIL + 2
  movl $0, 0x50(%rbp)
7: cmp %r8w, USED + 2
  jne 7b
  mov 0x60(%rbp), %eax
  mov %eax, 0x64(%rbp)
  ret

putStatus:
  mov STATUS, %al
  add $'0', %al
  /* falls through */
put:
  mov $COM1, %edx
  out %al, %dx
  ret

get:
  mov $COM1 + 5, %edx
8: in %dx, %al
  test $1, %al
  jz 8b
  mov $COM1, %edx
  in %dx, %al
  ret

/* What is written where at first. */
.balign 4
table:
  .long DESCRIPTORS, HEADER, DESCRIPTORS + 8, 16, DESCRIPTORS + 12, 0x00010001
  .long DESCRIPTORS + 16, DATA, DESCRIPTORS + 24, 4096, DESCRIPTORS + 28, 0x00020001
  .long DESCRIPTORS + 32, STATUS, DESCRIPTORS + 40, 1, DESCRIPTORS + 44, 2
  .long WINDOW + 0x70, 0, WINDOW + 0x70, 1, WINDOW + 0x70, 3
  .long WINDOW + 0x24, 1, WINDOW + 0x20, 1, WINDOW + 0x70, 11
  .long WINDOW + 0x30, 0, WINDOW + 0x38, 8
  .long WINDOW + 0x80, DESCRIPTORS, WINDOW + 0x90, AVAIL, WINDOW + 0xa0, USED
  .long WINDOW + 0x44, 1, WINDOW + 0x70, 15
  .long 0
