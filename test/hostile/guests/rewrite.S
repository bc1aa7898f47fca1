/* Writes a word into every page from 4 MiB to 60 MiB, forever, so RAM changes during every save. */
#include "guest.inc"
  BEGIN
  SAY_DONE
  mov $1, %ebx
1:
  mov $0x400000, %edi
2:
  mov %rbx, (%rdi)
  add $4096, %rdi
  cmp $0x3c00000, %rdi
  jb 2b
  inc %rbx
  jmp 1b
