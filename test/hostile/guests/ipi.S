/*
 * Writes the local APIC's interrupt command register: SMI, a reserved mode and ExtINT to itself, then SIPI and INIT to
 * all processors. The INIT sends the boot processor to its reset vector, where there is no firmware.
 */
#include "guest.inc"
  BEGIN
  mov $0xfee00000, %ebx
  movl $0x1ff, 0xf0(%rbx)     /* spurious interrupt vector: APIC on */
  movl $0x44200, 0x300(%rbx)  /* SMI to itself */
  movl $0x44300, 0x300(%rbx)  /* reserved delivery mode */
  movl $0x44700, 0x300(%rbx)  /* ExtINT to itself */
  movl $0x84600, 0x300(%rbx)  /* SIPI to all */
  movl $0x84500, 0x300(%rbx)  /* INIT to all */
  SAY_DONE
  HALT
