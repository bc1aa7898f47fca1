/*
 * Port accesses by string instructions that need several exits: into unaligned RAM, across pages, downwards, to the
 * clock's index and data ports, and between ports and addresses without RAM.
 */
#include "guest.inc"
.set RTC_INDEX, 0x70
.set RTC_DATA, 0x71
  BEGIN
  mov $COM1 + 7, %edx
  mov $0x400000, %edi
  mov $5000, %ecx
  rep insb
  mov $0x400001, %edi
  mov $5000, %ecx
  rep insw
  mov $0x400001, %edi
  mov $5000, %ecx
  rep insl
  std
  mov $0x410001, %edi
  mov $5000, %ecx
  rep insl
  cld
  mov $RTC_INDEX, %edx
  mov $0x400001, %esi
  mov $3000, %ecx
  rep outsl
  mov $RTC_DATA, %edx
  mov $0x400001, %esi
  mov $3000, %ecx
  rep outsw
  mov $0xcffffff0, %esi
  mov $100, %ecx
  mov $0x80, %edx
  rep outsl
  mov $0xd0000000, %edi
  mov $100, %ecx
  rep insl
  SAY_DONE
  HALT
