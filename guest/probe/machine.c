/*
 * LAPIC, IOAPIC, kvmclock and the start of APs, from ring 3. Device registers are mapped memory, and the TSS's bitmap
 * opens the ports (some KVM hosts drop IOPL in an iret to ring 3). The stub handles only MSRs and sleeping.
 *
 * The boot vCPU's timer is the TSC deadline where CPUID has it, and one-shot otherwise. APs use a periodic timer. There
 * is no other wake-up: after a restore that loses the LAPIC or the deadline there are no ticks, and after one that loses
 * the IOAPIC or PIC state there is no input.
 *
 * LAPIC and IOAPIC: Intel SDM volume 3, chapter 11; 82093AA. kvmclock: Documentation/virt/kvm/x86/msr.rst.
 */
#include "machine.h"

#include <stddef.h>
#include <string.h>

#include "load.h"

#define LAPIC_ID 0x20
#define LAPIC_TPR 0x80
#define LAPIC_SVR 0xf0
#define LAPIC_ICR_LOW 0x300
#define LAPIC_ICR_HIGH 0x310
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LAPIC_INITIAL_COUNT 0x380
#define LAPIC_DIVIDE 0x3e0

#define SVR_ENABLE 0x100
#define LVT_MASKED 0x10000
#define LVT_PERIODIC 0x20000
#define LVT_TSC_DEADLINE 0x40000
#define TSS_AVAILABLE 0x89

#define ICR_INIT 0x4500
#define ICR_STARTUP 0x4600
#define ICR_ALL_BUT_SELF 0xc0000
#define DIVIDE_BY_1 0xb
#define DIVIDE_BY_16 0x3

/* The frequency of KVM's APIC bus by default. Another one only makes a sleep longer or shorter. */
#define APIC_BUS_HZ 1000000000u
#define AP_WAKES_HZ 4

#define IOAPIC_SELECT 0x00
#define IOAPIC_WINDOW 0x10
#define IOAPIC_REDIRECTION 0x10
#define UART_GSI 4

#define PIC1_DATA 0x21
#define PIC2_DATA 0xa1

#define MSR_KVM_SYSTEM_TIME 0x4b564d01
#define MSR_TSC_DEADLINE 0x6e0
#define KVM_CPUID 0x40000000
#define KVM_FEATURE_CLOCKSOURCE2 (1u << 3)
#define CPUID_TSC_DEADLINE (1u << 24)
#define CPUID_TOPOLOGY 0xb

/* How far the clock may go back between two reads: a restore rebases it with this precision. */
#define CLOCK_SLACK_NS 1000000

struct pvclock {
  volatile uint32_t version;
  uint32_t pad0;
  volatile uint64_t tsc_timestamp;
  volatile uint64_t system_time;
  volatile uint32_t tsc_to_system_mul;
  volatile int8_t tsc_shift;
  uint8_t flags;
  uint8_t pad[2];
};

static struct pvclock pvclock __attribute__((aligned(64)));
static bool has_tsc_deadline;
static uint64_t last_ns;
static const char *clock_fault;
static volatile uint32_t ids_request;

extern const uint8_t trampoline[], trampoline_end[];
extern uint8_t gdt[];
uint32_t ap_index; /* the AP that is being started; read by the stub */

static volatile uint32_t *lapic(uint32_t reg) { return (volatile uint32_t *)(uintptr_t)(LAPIC_BASE + reg); }

static void ioapic_write(uint32_t reg, uint32_t value) {
  *(volatile uint32_t *)(uintptr_t)(IOAPIC_BASE + IOAPIC_SELECT) = reg;
  *(volatile uint32_t *)(uintptr_t)(IOAPIC_BASE + IOAPIC_WINDOW) = value;
}

/* In ring 0: a host without VMX and SVM, whose processor has no CPUID faulting, shows ring 3 its own CPUID. */
struct cpuid cpuid(uint32_t leaf) {
  struct cpuid r;
  __asm__ volatile("int3"
                   : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                   : "a"(leaf), "c"(0), "D"(REQUEST_CPUID)
                   : "memory", "cc");
  return r;
}

/* Writes the IDs that this vCPU has of itself, once for each request. */
static void answer_ids(struct cpu *cpu) {
  uint32_t request = ids_request;
  if (cpu->ids_answered == request) return;
  cpu->ids[0] = *lapic(LAPIC_ID) >> 24;
  cpu->ids[1] = cpuid(1).ebx >> 24;
  /* Leaf 0xb is where x2APIC is; an absent leaf reads as zeros or as another leaf. */
  cpu->ids[2] = cpuid(0).eax >= CPUID_TOPOLOGY && cpuid(CPUID_TOPOLOGY).ebx ? cpuid(CPUID_TOPOLOGY).edx : cpu->ids[1];
  __asm__ volatile("" ::: "memory");
  cpu->ids_answered = request;
}

static void write_msr(uint32_t msr, uint64_t value) {
  uint32_t low = (uint32_t)value;
  __asm__ volatile("int3" : "+a"(low) : "D"(REQUEST_WRMSR), "c"(msr), "d"((uint32_t)(value >> 32)) : "memory", "cc");
}

static uint64_t read_msr(uint32_t msr) {
  uint32_t low, high;
  __asm__ volatile("int3" : "=a"(low), "=d"(high) : "D"(REQUEST_RDMSR), "c"(msr) : "memory", "cc");
  return (uint64_t)high << 32 | low;
}

void machine_idle(void) { __asm__ volatile("int3" ::"D"(REQUEST_IDLE) : "rax", "memory", "cc"); }

_Noreturn void machine_stop(void) {
  for (;;) __asm__ volatile("int3" ::"D"(REQUEST_STOP) : "rax", "memory", "cc");
}

void machine_open_ports(void) {
  uint8_t *tss = (uint8_t *)CPU_BLOCKS + CPU_TSS;
  memset(tss + TSS_BITMAP, 0, OPEN_PORTS / 8);
  tss[TSS_BITMAP + OPEN_PORTS / 8] = 0xff; /* the byte after the bitmap must be ones */
}

static void lapic_start(void) {
  *lapic(LAPIC_TPR) = 0;
  *lapic(LAPIC_LVT_LINT0) = LVT_MASKED;
  *lapic(LAPIC_LVT_LINT1) = LVT_MASKED;
  *lapic(LAPIC_SVR) = SVR_ENABLE | VECTOR_SPURIOUS;
}

static uint64_t clock_msr(void) { return (uintptr_t)&pvclock | 1; }

bool machine_start(void) {
  struct cpu *cpu = cpu_block(0);
  *cpu = (struct cpu){.lapic_id = *lapic(LAPIC_ID) >> 24, .started = 1};
  out8(PIC1_DATA, 0xff);
  out8(PIC2_DATA, 0xff);
  lapic_start();
  ioapic_write(IOAPIC_REDIRECTION + 2 * UART_GSI + 1, cpu->lapic_id << 24);
  ioapic_write(IOAPIC_REDIRECTION + 2 * UART_GSI, VECTOR_UART);

  struct cpuid kvm = cpuid(KVM_CPUID);
  if (kvm.ebx != 0x4b4d564b /* "KVMK" */ || !(cpuid(KVM_CPUID + 1).eax & KVM_FEATURE_CLOCKSOURCE2)) return false;
  write_msr(MSR_KVM_SYSTEM_TIME, clock_msr());
  has_tsc_deadline = cpuid(1).ecx & CPUID_TSC_DEADLINE;
  *lapic(LAPIC_DIVIDE) = DIVIDE_BY_1;
  *lapic(LAPIC_LVT_TIMER) = VECTOR_TIMER | (has_tsc_deadline ? LVT_TSC_DEADLINE : 0);
  __asm__ volatile("mfence" ::: "memory"); /* SDM 11.5.4.1: before the first write of the deadline */
  return true;
}

uint64_t machine_now_ns(void) {
  uint32_t version;
  uint64_t ns;
  do {
    version = pvclock.version;
    __asm__ volatile("" ::: "memory");
    uint64_t ticks = rdtsc() - pvclock.tsc_timestamp;
    int shift = pvclock.tsc_shift;
    ticks = shift < 0 ? ticks >> -shift : ticks << shift;
    ns = pvclock.system_time + (uint64_t)(((unsigned __int128)ticks * pvclock.tsc_to_system_mul) >> 32);
    __asm__ volatile("" ::: "memory");
  } while ((version & 1) || version != pvclock.version);
  if (ns < last_ns) {
    if (last_ns - ns > CLOCK_SLACK_NS) clock_fault = "kvmclock went back";
    return last_ns;
  }
  return last_ns = ns;
}

const char *machine_clock_fault(void) {
  if (!clock_fault && read_msr(MSR_KVM_SYSTEM_TIME) != clock_msr()) clock_fault = "kvmclock's MSR was lost";
  return clock_fault;
}

void machine_set_timer(uint64_t at_ns, uint64_t now_ns) {
  uint64_t delta_ns = at_ns > now_ns ? at_ns - now_ns : 1;
  if (delta_ns > 1000000000) delta_ns = 1000000000; /* keeps the arithmetic in range; an early wake-up is harmless */
  if (!has_tsc_deadline) {
    *lapic(LAPIC_INITIAL_COUNT) = (uint32_t)(delta_ns * (APIC_BUS_HZ / 1000000) / 1000 + 1);
    return;
  }
  uint64_t ticks = (delta_ns << 32) / pvclock.tsc_to_system_mul;
  int shift = pvclock.tsc_shift;
  ticks = shift < 0 ? ticks << -shift : ticks >> shift;
  write_msr(MSR_TSC_DEADLINE, rdtsc() + ticks + 1);
}

/* An AP: counts the wake-ups by its own timer, and takes part in a load. */
_Noreturn void ap_main(uint32_t index) {
  struct cpu *cpu = cpu_block(index);
  lapic_start();
  *lapic(LAPIC_DIVIDE) = DIVIDE_BY_16;
  *lapic(LAPIC_LVT_TIMER) = VECTOR_TIMER | LVT_PERIODIC;
  *lapic(LAPIC_INITIAL_COUNT) = APIC_BUS_HZ / 16 / AP_WAKES_HZ;
  cpu->started = 1;
  for (uint64_t seen = cpu->timer_irqs;;) {
    load_run(index);
    machine_idle();
    cpu->pending = 0;
    uint64_t irqs = cpu->timer_irqs;
    cpu->count += irqs - seen;
    seen = irqs;
    answer_ids(cpu);
  }
}

static void wait_ns(uint64_t duration_ns, const volatile uint32_t *until) {
  uint64_t end_ns = machine_now_ns() + duration_ns;
  while (machine_now_ns() < end_ns && !(until && *until)) __asm__ volatile("pause");
}

static void send_ipi(uint32_t lapic_id, uint32_t command) {
  *lapic(LAPIC_ICR_HIGH) = lapic_id << 24;
  *lapic(LAPIC_ICR_LOW) = command;
}

void machine_init_cpu(uint32_t index) {
  cpu_block(index)->started = 0;
  send_ipi(cpu_block(index)->lapic_id, ICR_INIT);
}

bool machine_start_cpu(uint32_t index) {
  struct cpu *cpu = cpu_block(index);
  ap_index = index;
  gdt[TSS_SELECTOR + 16 * index + 5] = TSS_AVAILABLE; /* ltr made it busy if the vCPU ran before */
  for (int attempt = 0; attempt < 2 && !cpu->started; attempt++) {
    send_ipi(cpu->lapic_id, ICR_STARTUP | TRAMPOLINE >> 12);
    wait_ns(2000000000, &cpu->started);
  }
  return cpu->started;
}

uint32_t machine_start_cpus(const uint32_t *lapic_ids, uint32_t count) {
  for (size_t i = 0; i < (size_t)(trampoline_end - trampoline); i++)
    ((volatile uint8_t *)TRAMPOLINE)[i] = trampoline[i];
  uint32_t running = 1;
  for (uint32_t i = 0; i < count && running < MAX_CPUS; i++) {
    if (lapic_ids[i] == cpu_block(0)->lapic_id) continue;
    *cpu_block(running) = (struct cpu){.lapic_id = lapic_ids[i]};
    machine_init_cpu(running);
    wait_ns(1000000, NULL);
    if (machine_start_cpu(running)) running++;
  }
  return running;
}

bool machine_read_ids(uint32_t cpus) {
  ids_request++;
  answer_ids(cpu_block(0));
  for (uint32_t i = 1; i < cpus; i++) {
    const struct cpu *cpu = cpu_block(i);
    uint64_t end_ns = machine_now_ns() + 10000000000;
    while (cpu->ids_answered != ids_request && machine_now_ns() < end_ns) __asm__ volatile("pause");
    if (cpu->ids_answered != ids_request) return false;
  }
  return true;
}

void machine_stop_cpus(void) { *lapic(LAPIC_ICR_LOW) = ICR_ALL_BUT_SELF | ICR_INIT; }
