/*
 * The guest-physical addresses of the probe, and the constants that the ring-0 stub shares with the C code.
 * Everything is identity-mapped. README.md describes the same map.
 */
#ifndef PROBE_LAYOUT_H
#define PROBE_LAYOUT_H

#define TRAMPOLINE 0x8000 /* where an AP starts in real mode: SIPI vector 8 */
#define IMAGE_BASE 0x200000
#define CPU_BLOCKS 0x280000  /* one 4 KiB struct cpu for each vCPU, its ring-0 stack at the top of it */
#define USER_STACKS 0x2c0000 /* 8 KiB for each vCPU */
#define TABLE_POOL 0x340000  /* page directories for RAM above 4 GiB, one for each GiB */
#define AREA_BASE 0x400000   /* from here to the end of RAM: the area of fill and text, then the pages that dirty rewrites */

#define MAX_CPUS 64
#define CPU_BLOCK_SIZE 4096
#define USER_STACK_SIZE 8192
#define MAX_MAPPED_GIB (4 + (AREA_BASE - TABLE_POOL) / 4096)

#define LAPIC_BASE 0xfee00000
#define IOAPIC_BASE 0xfec00000
#define LAPIC_EOI 0xb0

/* offsets in struct cpu, for the stub */
#define CPU_PENDING 0
#define CPU_TIMER_IRQS 8
#define CPU_UART_IRQS 16
#define CPU_TSS 128
#define TSS_RSP0 4
#define TSS_IOPB 102
#define TSS_BITMAP 104
#define TSS_SIZE (TSS_BITMAP + OPEN_PORTS / 8 + 1)
#define OPEN_PORTS 0x800 /* ports from 0 on that ring 3 of vCPU 0 may use */

#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#define USER_CS 0x1b
#define USER_DS 0x23
#define TSS_SELECTOR 0x28 /* of vCPU 0; 16 bytes each */

#define VECTOR_TIMER 0x20
#define VECTOR_UART 0x24
#define VECTOR_SPURIOUS 0xff

#define USER_FLAGS 0x202 /* interrupts on */
#define USER_FLAGS_QUIET 0x002

/* Requests of ring 3 to the stub: int3 with one of these in %edi */
#define REQUEST_IDLE 0
#define REQUEST_WRMSR 1
#define REQUEST_RDMSR 2
#define REQUEST_CPUID 3
#define REQUEST_STOP 4

#endif
