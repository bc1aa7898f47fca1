/* An undefined instruction, at 0x200100, without an IDT to handle it. */
#include "guest.inc"
  BEGIN
  lidt none(%rip)
  jmp undefined
none: .quad 0, 0
.org 0x100
undefined:
  ud2
