/* Jumps to an address without RAM or a device, so KVM has no instruction to run. */
#include "guest.inc"
  BEGIN
  mov $0xd0000000, %eax
  jmp *%rax
