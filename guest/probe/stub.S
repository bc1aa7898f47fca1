/*
 * The ring-0 part of the probe: set-up, interrupt entry, five requests, and an AP's start from real mode to ring 3.
 * It has only tens of plain instructions, because some KVM hosts emulate ring 0 one instruction at a time and lack
 * some instructions: no int3, popcnt or SSE here. Page tables, GDT and IDT are data, not code.
 *
 * Ring 3 makes a request by int3, the only software interrupt that every KVM delivers from there. %edi is the
 * request; %eax, %ebx, %ecx and %edx are those of wrmsr, rdmsr and cpuid. %rax is clobbered.
 *
 * Invariants:
 * - Ring 3 runs with interrupts on, ring 0 with interrupts off, except for its one `hlt`.
 * - An interrupt is counted, sets `pending` and is acknowledged; nothing else.
 * - Idle checks `pending` with interrupts off, then sleeps by `sti; hlt`. The shadow of sti prevents an interrupt in
 *   between, so no event is missed.
 *
 * Entry: the 64-bit boot protocol of Documentation/arch/x86/boot.rst (long mode, interrupts off, %rsi =
 * boot_params). GDT, IDT, TSS: Intel SDM volume 3, chapters 3, 6 and 8.
 */
#include "layout.h"

#define CR4_PAE 0x20 /* without SMEP and SMAP: all pages belong to ring 3 */
#define CR0_PG_ET_PE 0x80000011
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

.section .text.start, "ax"
.code64
.global _start
text_base:
_start:
  cli
  cld
  mov $CR4_PAE, %eax
  mov %rax, %cr4
  mov $pml4, %eax
  mov %rax, %cr3
  lgdt gdt_pointer
  mov $(CPU_BLOCKS + CPU_BLOCK_SIZE), %esp
  pushq $KERNEL_CS
  pushq $1f
  lretq
1:
  xor %edi, %edi
  mov $probe_main, %edx

/* %edi: index of this vCPU; %rdx: entry in ring 3, which gets %edi, %rsi and %rdx as its arguments. */
enter_ring3:
  lidt idt_pointer
  mov $KERNEL_DS, %eax
  mov %eax, %ss
  mov $USER_DS, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %edi, %ebx
  shl $12, %ebx
  lea (CPU_BLOCKS + CPU_BLOCK_SIZE)(%rbx), %rsp
  mov %rsp, (CPU_BLOCKS + CPU_TSS + TSS_RSP0)(%rbx)
  movw $TSS_BITMAP, (CPU_BLOCKS + CPU_TSS + TSS_IOPB)(%rbx)
  mov %edi, %eax
  shl $4, %eax
  add $TSS_SELECTOR, %eax
  ltr %ax
  lea (USER_STACKS + USER_STACK_SIZE - 8)(%rbx, %rbx), %rax
  pushq $USER_DS
  push %rax
  pushq $USER_FLAGS
  pushq $USER_CS
  push %rdx
  iretq

ap_start:
  mov ap_index, %edi
  mov $ap_main, %edx
  jmp enter_ring3

request:
  test %edi, %edi
  jnz 1f
  mov %rsp, %rax
  and $-CPU_BLOCK_SIZE, %rax
  cmpl $0, CPU_PENDING(%rax)
  jne 2f
  sti
  hlt
  cli
2:
  iretq
1:
  cmp $REQUEST_WRMSR, %edi
  jne 1f
  wrmsr
  iretq
1:
  cmp $REQUEST_RDMSR, %edi
  jne 1f
  rdmsr
  iretq
1:
  cmp $REQUEST_CPUID, %edi
  jne 1f
  cpuid
  iretq
1:
  hlt
  jmp 1b

.macro interrupt_entry counter
  push %rax
  mov %rsp, %rax
  and $-CPU_BLOCK_SIZE, %rax
  incq \counter(%rax)
  movl $1, CPU_PENDING(%rax)
  mov $(LAPIC_BASE + LAPIC_EOI), %eax
  movl $0, (%rax)
  pop %rax
  iretq
.endm

timer_interrupt:
  interrupt_entry CPU_TIMER_IRQS
uart_interrupt:
  interrupt_entry CPU_UART_IRQS
spurious_interrupt:
  iretq

/* An exception is a fault of the probe or of its machine: ring 3 reports it. 16 bytes each. */
.balign 16
exceptions:
.set vector, 0
.rept 32
  .balign 16
  .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
  push $0
  .endif
  push $vector
  jmp exception
  .set vector, vector + 1
.endr

exception:
  pop %rdi
  pop %rsi
  mov (%rsp), %rdx
  mov %cr2, %rcx
  movq $probe_fault, (%rsp)
  movq $USER_CS, 8(%rsp)
  movq $USER_FLAGS_QUIET, 16(%rsp)
  movq $fault_stack_top, 24(%rsp)
  movq $USER_DS, 32(%rsp)
  iretq

/* Copied to TRAMPOLINE; the SIPI starts it with %cs = TRAMPOLINE >> 4. */
.code16
.global trampoline, trampoline_end
trampoline:
  cli
  xor %ax, %ax
  mov %ax, %ds
  lgdtl TRAMPOLINE + trampoline_gdt - trampoline
  mov $CR4_PAE, %eax
  mov %eax, %cr4
  mov $pml4, %eax
  mov %eax, %cr3
  mov $MSR_EFER, %ecx
  mov $EFER_LME, %eax
  xor %edx, %edx
  wrmsr
  mov $CR0_PG_ET_PE, %eax
  mov %eax, %cr0
  ljmpl $KERNEL_CS, $ap_start
.balign 4
trampoline_gdt:
  .word gdt_end - gdt - 1
  .long gdt
trampoline_end:
.code64

.section .data, "aw"
.balign 8
.global gdt
gdt:
  .quad 0
  .quad 0x00af9b000000ffff /* KERNEL_CS: ring 0, 64-bit */
  .quad 0x00cf93000000ffff /* KERNEL_DS */
  .quad 0x00affb000000ffff /* USER_CS: ring 3, 64-bit */
  .quad 0x00cff3000000ffff /* USER_DS */
.set cpu, 0
.rept MAX_CPUS
  .set tss, CPU_BLOCKS + cpu * CPU_BLOCK_SIZE + CPU_TSS
  .word TSS_SIZE - 1, tss & 0xffff
  .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
  .quad 0
  .set cpu, cpu + 1
.endr
gdt_end:

.balign 8
idt:
.macro gate handler, dpl
  .word \handler - text_base, KERNEL_CS
  .byte 0, 0x8e | (\dpl << 5)
  .word IMAGE_BASE >> 16
  .quad 0
.endm
.set vector, 0
.rept 256
  .if vector == 3
  gate request, 3
  .elseif vector < 32
  gate "exceptions + 16 * vector", 0
  .elseif vector == VECTOR_TIMER
  gate timer_interrupt, 0
  .elseif vector == VECTOR_UART
  gate uart_interrupt, 0
  .else
  gate spurious_interrupt, 0
  .endif
  .set vector, vector + 1
.endr
idt_end:

.balign 8
  .skip 6
gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt
  .skip 6
idt_pointer:
  .word idt_end - idt - 1
  .quad idt

/* The first 4 GiB, identity-mapped in 2 MiB user pages; firmware.c adds the RAM above. */
.balign 4096
pml4:
  .quad pdpt + 7
  .skip 4088
.global pdpt
pdpt:
  .quad low_directories + 7, low_directories + 0x1007, low_directories + 0x2007, low_directories + 0x3007
  .skip 4064
low_directories:
.set page, 0
.rept 2048
  .quad (page << 21) | 0x87
  .set page, page + 1
.endr

.section .bss
.balign 16
  .skip 2040
fault_stack_top:
  .skip 8

.section .note.GNU-stack, "", @progbits
