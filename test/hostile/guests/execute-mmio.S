/* Jumps to an address that is neither RAM nor a device: there is no instruction for KVM to run. */
#include "guest.inc"
  BEGIN
  mov $0xd0000000, %eax
  jmp *%rax
