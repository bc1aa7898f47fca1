/*
 * Reads and writes ports in all three sizes: every port below 0x800, some above, and the last ones, where a wide access
 * crosses the end. It leaves out writes that reset or power off the machine. It leaves out the serial port until the
 * end: a wide write into its registers, after which it is made usable again (no divisor latch, no loopback).
 */
#include "guest.inc"
.set KEYBOARD_COMMAND, 0x64
.set PM1A_CONTROL, 0x604
  BEGIN
  xor %ebp, %ebp
1:
  mov %ebp, %edx
  cmp $COM1, %edx         /* input that was read here would be lost */
  je 3f
  in %dx, %al
  in %dx, %ax
  in %dx, %eax
  mov %ebp, %edx
  cmp $KEYBOARD_COMMAND - 3, %edx
  jb 2f
  cmp $KEYBOARD_COMMAND, %edx
  jbe 3f
  cmp $COM1 - 3, %edx
  jb 2f
  cmp $COM1 + 7, %edx
  jbe 3f
  cmp $PM1A_CONTROL - 3, %edx
  jb 2f
  cmp $PM1A_CONTROL + 1, %edx
  jbe 3f
2:
  mov $0xa5, %al
  out %al, %dx
  mov $0x1234, %ax
  out %ax, %dx
  mov $0xffffffff, %eax
  out %eax, %dx
3:
  inc %ebp
  cmp $0x800, %ebp
  jb 1b
  cmp $0xfff0, %ebp
  jae 4f
  add $0x1f2, %ebp
4:
  cmp $0x10000, %ebp
  jb 1b
  mov $COM1 + 1, %edx
  mov $0xffffffff, %eax
  out %eax, %dx
  mov $COM1 + 3, %edx
  xor %eax, %eax
  out %al, %dx
  mov $COM1 + 4, %edx
  out %al, %dx
  SAY_DONE
  HALT
