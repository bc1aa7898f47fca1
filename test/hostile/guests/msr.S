/*
 * Writes MSRs that livesnap or KVM handle: TSC deadlines of all ones, 1 and 0; a TSC of all ones; a disabled local APIC,
 * then a deadline; a kvmclock at an address without RAM.
 */
#include "guest.inc"
.set TSC, 0x10
.set APIC_BASE, 0x1b
.set TSC_DEADLINE, 0x6e0
.set KVM_SYSTEM_TIME, 0x4b564d01
  BEGIN
  mov $TSC_DEADLINE, %ecx
  mov $0xffffffff, %eax
  mov $0xffffffff, %edx
  wrmsr
  mov $1, %eax
  xor %edx, %edx
  wrmsr
  xor %eax, %eax
  wrmsr
  mov $TSC, %ecx
  mov $0xffffffff, %eax
  mov $0xffffffff, %edx
  wrmsr
  mov $TSC_DEADLINE, %ecx
  wrmsr
  mov $APIC_BASE, %ecx
  rdmsr
  and $0xfffff7ff, %eax
  wrmsr
  mov $TSC_DEADLINE, %ecx
  mov $5, %eax
  wrmsr
  mov $KVM_SYSTEM_TIME, %ecx
  mov $0xfffff001, %eax
  mov $0xffffffff, %edx
  wrmsr
  SAY_DONE
  HALT
