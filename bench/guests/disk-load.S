/*
 * Writes blocks of a disk of 2 GiB at the second virtio window, by commands on the console, and polls for the answers.
 *
 *   n   writes a new page to every hundredth block, and answers
 *   l   writes new pages to blocks all over the disk until there is input, and answers
 *
 * Half of each page is different in each of 256 pages; its first bytes count the writes. So no page is stored twice.
 */
#include "guest.inc"
.set WINDOW, 0xd0001000
.set DESCRIPTORS, 0x300000
.set AVAIL, 0x301000
.set USED, 0x302000
.set HEADER, 0x303000
.set STATUS, 0x303010
.set STACK, 0x310000
.set PAGES, 0x400000
.set BLOCKS, 0x80000
.set STEP, 100

  BEGIN
  mov $STACK, %esp
  mov $WINDOW, %ebp
  mov $PAGES, %edi
  mov $88172645, %eax
  mov $256, %edx
1: mov $512, %ecx
2: imul $1664525, %eax, %eax
  add $1013904223, %eax
  mov %eax, (%rdi)
  add $4, %edi
  dec %ecx
  jnz 2b
  add $2048, %edi
  dec %edx
  jnz 1b
  lea table(%rip), %rsi
3: lodsl
  mov %eax, %edi
  test %edi, %edi
  jz 4f
  lodsl
  mov %eax, (%rdi)
  jmp 3b
4: xor %r8d, %r8d         /* the avail index */
  xor %r12d, %r12d        /* counts the writes */
answer:
  mov $COM1, %edx
  mov STATUS, %al
  add $'0', %al
  out %al, %dx
  mov $'\n', %al
  out %al, %dx
command:
  call hasInput
  jz command
  mov $COM1, %edx
  in %dx, %al
  cmp $'l', %al
  je load

  xor %r9d, %r9d
5: call write
  add $STEP, %r9d
  cmp $BLOCKS, %r9d
  jb 5b
  jmp answer

load:
  mov $12345, %r10d
6: imul $1664525, %r10d, %r10d
  add $1013904223, %r10d
  mov %r10d, %r9d
  shr $13, %r9d
  call write
  test $31, %r12b          /* an access of a port takes as long as a write */
  jnz 6b
  call hasInput
  jz 6b
  mov $COM1, %edx
  in %dx, %al
  jmp answer

hasInput:
  mov $COM1 + 5, %edx
  in %dx, %al
  test $1, %al
  ret

/* Writes a new page to block r9d. */
write:
  inc %r12
  movzbl %r12b, %edi
  shl $12, %edi
  add $PAGES, %edi
  mov %r12, (%rdi)
  mov %edi, DESCRIPTORS + 16
  mov %r9d, %eax
  shl $3, %eax
  mov %eax, HEADER + 8
  movb $0xff, STATUS
  inc %r8w
  mov %r8w, AVAIL + 2
  movl $0, 0x50(%rbp)
7: cmp %r8w, USED + 2
  jne 7b
  ret

/* What is written where at first. */
.balign 4
table:
  .long DESCRIPTORS, HEADER, DESCRIPTORS + 8, 16, DESCRIPTORS + 12, 0x00010001
  .long DESCRIPTORS + 16, PAGES, DESCRIPTORS + 24, 4096, DESCRIPTORS + 28, 0x00020001
  .long DESCRIPTORS + 32, STATUS, DESCRIPTORS + 40, 1, DESCRIPTORS + 44, 2
  .long HEADER, 1
  .long AVAIL, 1
  .long WINDOW + 0x70, 0, WINDOW + 0x70, 1, WINDOW + 0x70, 3
  .long WINDOW + 0x24, 1, WINDOW + 0x20, 1, WINDOW + 0x70, 11
  .long WINDOW + 0x30, 0, WINDOW + 0x38, 8
  .long WINDOW + 0x80, DESCRIPTORS, WINDOW + 0x90, AVAIL, WINDOW + 0xa0, USED
  .long WINDOW + 0x44, 1, WINDOW + 0x70, 15
  .long 0
