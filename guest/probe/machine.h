/* The vCPUs, their interrupts and their clock, for ring 3. */
#ifndef PROBE_MACHINE_H
#define PROBE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

/* The head of a vCPU's block; its TSS is at CPU_TSS, its ring-0 stack ends the block. The stub counts interrupts here. */
struct cpu {
  volatile uint32_t pending;
  uint32_t lapic_id;
  volatile uint64_t timer_irqs;
  volatile uint64_t uart_irqs;
  /* Wake-ups by its own timer, counted in ring 3 and printed by `cpus`. */
  volatile uint64_t count;
  volatile uint32_t started;
  /* The APIC ID by the LAPIC, by CPUID leaf 1 and by leaf 0xb, as of the request `ids_answered`. */
  volatile uint32_t ids_answered;
  volatile uint32_t ids[3];
};

_Static_assert(__builtin_offsetof(struct cpu, pending) == CPU_PENDING, "layout.h");
_Static_assert(__builtin_offsetof(struct cpu, timer_irqs) == CPU_TIMER_IRQS, "layout.h");
_Static_assert(__builtin_offsetof(struct cpu, uart_irqs) == CPU_UART_IRQS, "layout.h");
_Static_assert(sizeof(struct cpu) <= CPU_TSS, "layout.h");

static inline struct cpu *cpu_block(uint32_t index) {
  return (struct cpu *)(uintptr_t)(CPU_BLOCKS + index * CPU_BLOCK_SIZE);
}

static inline uint8_t in8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline void out8(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static inline void out16(uint16_t port, uint16_t value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }

static inline uint64_t rdtsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

struct cpuid {
  uint32_t eax, ebx, ecx, edx;
};

struct cpuid cpuid(uint32_t leaf);

/* Opens the ports below OPEN_PORTS to the boot vCPU. Call it first. */
void machine_open_ports(void);

/* Enables the boot vCPU's interrupts and clock. Returns false on a machine without kvmclock. */
bool machine_start(void);

/* Starts the other vCPUs of the firmware tables, one by one. Returns how many run, including this one. */
uint32_t machine_start_cpus(const uint32_t *lapic_ids, uint32_t count);

/* Puts an AP into wait-for-SIPI. Its load must be off. */
void machine_init_cpu(uint32_t index);

/* Starts an AP that waits for it. Returns false if it has not answered two SIPIs within seconds. */
bool machine_start_cpu(uint32_t index);

/* Has every vCPU write the IDs that it has of itself. Returns false if one does not answer. */
bool machine_read_ids(uint32_t cpus);

/* Nanoseconds by kvmclock; never decreases. */
uint64_t machine_now_ns(void);

/* Why the clock is wrong, or null. Reads the clock's MSR back. */
const char *machine_clock_fault(void);

/* Requests a timer interrupt at that time, in place of the previous one. */
void machine_set_timer(uint64_t at_ns, uint64_t now_ns);

/* Clears the boot vCPU's pending flag, and returns what it was: true once after each interrupt. */
static inline bool machine_pending(void) { return cpu_block(0)->pending != 0; }

/* Sleeps until `pending` is set; returns at once if it is. */
void machine_idle(void);

/* Returns the other vCPUs to wait-for-SIPI. */
void machine_stop_cpus(void);

/* Disables interrupts for good. */
_Noreturn void machine_stop(void);

#endif
