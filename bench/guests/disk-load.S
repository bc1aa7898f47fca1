/*
 * Writes blocks of a disk of 2 GiB at the second virtio window, by commands on the console, and polls for the answers.
 *
 *   n   writes a new page to every hundredth block, and answers
 *   c   writes as many new pages to blocks that follow each other, as a file does, and answers
 *   l   writes new pages to blocks all over the disk until there is input, and answers
 *
 * Half of each page is different in each of 256 pages; its first bytes count the writes. So no page is stored twice.
 */
#include "guest.inc"
#include "disk.inc"
.set PAGES, 0x400000
.set BLOCKS, 0x80000
.set STEP, 100

  BEGIN
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
  SET_UP_DISK
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
  mov $STEP, %r13d
  mov $BLOCKS, %r14d
  cmp $'c', %al
  jne 5f
  mov $1, %r13d
  mov $(BLOCKS + STEP - 1) / STEP, %r14d
5: call write
  add %r13d, %r9d
  cmp %r14d, %r9d
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
  SUBMIT
  ret

  DISK_TABLE PAGES
