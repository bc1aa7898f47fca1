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
#include "disk.inc"
.set DATA, 0x304000

  BEGIN
  SET_UP_DISK
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
  mov %r9d, %eax
  SUBMIT
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

  DISK_TABLE DATA
