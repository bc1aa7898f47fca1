/* Sends line feeds to the console forever, 4 KiB per instruction. */
#include "guest.inc"
  BEGIN
1:
  mov $COM1, %edx
  lea lines(%rip), %rsi
  mov $4096, %ecx
  rep outsb
  jmp 1b
.balign 4096
lines: .fill 4096, 1, 10
