/*
 * Reads and writes addresses without RAM, in every size, across page boundaries, by string instructions and with
 * lock prefixes; then the IOAPIC, the local APIC and the last bytes below 4 GiB with sizes that they do not have.
 */
#include "guest.inc"
  BEGIN
  mov $0xd0000000, %ebx
  movb $1, (%rbx)
  movw $1, (%rbx)
  movl $1, (%rbx)
  movq $1, (%rbx)
  movb (%rbx), %al
  movw (%rbx), %ax
  movl (%rbx), %eax
  movq (%rbx), %rax
  movq 0xffd(%rbx), %rax
  movq %rax, 0xffd(%rbx)
  mov $0xd0000003, %esi
  mov $0xd0001001, %edi
  mov $300, %ecx
  rep movsb
  mov $100, %ecx
  rep movsq
  mov $0xd0000ffc, %edi
  mov $100, %ecx
  rep stosl
  lock addl $1, (%rbx)
  lock cmpxchgq %rax, (%rbx)
  xchgq %rax, (%rbx)
  mov $0xfec00000, %ebx
  movl $0x10, (%rbx)
  movl 0x10(%rbx), %eax
  movq 0x10(%rbx), %rax
  movb $3, (%rbx)
  mov $0xfee00000, %ebx
  movq (%rbx), %rax
  movl 0x30(%rbx), %eax
  movl 0xfff(%rbx), %eax
  mov $0xfffffff8, %ebx
  movq (%rbx), %rax
  SAY_DONE
  HALT
