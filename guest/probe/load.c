/*
 * The load of `load 1`. Each vCPU takes a spin lock (xchg), counts under it, and adds to another word by `lock xadd`.
 * It keeps its own share of both in registers for BATCH counts. If a restore loses or repeats anything of one vCPU or
 * of RAM, the shares no longer add up. The TSCs are compared under the lock, as Linux does when it starts a vCPU.
 *
 * Invariants: `locked`, `last_tsc` and `warps` are accessed only under the lock, or while all other vCPUs are stopped.
 */
#include "load.h"

#include "layout.h"
#include "machine.h"

#define BATCH 512
/* So that a vCPU also sleeps: an interrupt that comes meanwhile must still wake it after a restore. */
#define BATCHES_AWAKE 256

static struct {
  volatile uint32_t lock __attribute__((aligned(64)));
  uint64_t locked, last_tsc, warps;
  volatile uint64_t added __attribute__((aligned(64)));
  volatile uint32_t is_on __attribute__((aligned(64)));
} load;

static struct {
  volatile uint64_t locked, added;
  volatile uint32_t is_running;
} shares[MAX_CPUS] __attribute__((aligned(64)));

static inline void take_lock(void) {
  uint32_t taken = 1;
  for (;;) {
    __asm__ volatile("xchgl %0, %1" : "+r"(taken), "+m"(load.lock)::"memory");
    if (!taken) return;
    while (load.lock) __asm__ volatile("pause");
  }
}

static inline void release_lock(void) {
  __asm__ volatile("" ::: "memory");
  load.lock = 0;
}

static inline uint64_t ordered_rdtsc(void) {
  __asm__ volatile("lfence" ::: "memory");
  return rdtsc();
}

bool load_is_on(void) { return load.is_on; }

void load_set(bool on) { load.is_on = on; }

static void count_batch(uint32_t cpu) {
  uint64_t locked = 0, added = 0;
  for (uint32_t i = 0; i < BATCH; i++) {
    take_lock();
    load.locked++;
    uint64_t tsc = ordered_rdtsc();
    if (tsc < load.last_tsc) load.warps++;
    load.last_tsc = tsc;
    release_lock();
    locked++;
    uint64_t one = 1;
    __asm__ volatile("lock xaddq %0, %1" : "+r"(one), "+m"(load.added)::"memory", "cc");
    added++;
  }
  shares[cpu].locked += locked;
  shares[cpu].added += added;
}

void load_run(uint32_t cpu) {
  shares[cpu].is_running = 1;
  /* Before the read of `is_on`: load_read sees this flag, or this vCPU sees that the load is off. */
  __asm__ volatile("mfence" ::: "memory");
  for (uint32_t batch = 0; batch < BATCHES_AWAKE && load_is_on() && !cpu_block(cpu)->pending; batch++) count_batch(cpu);
  __asm__ volatile("" ::: "memory");
  shares[cpu].is_running = 0;
}

void load_read(uint32_t cpus, struct load_totals *totals) {
  bool was_on = load_is_on();
  load_set(false);
  __asm__ volatile("mfence" ::: "memory");
  for (uint32_t cpu = 1; cpu < cpus; cpu++)
    while (shares[cpu].is_running) __asm__ volatile("pause");
  *totals = (struct load_totals){.locked = load.locked, .added = load.added, .warps = load.warps};
  for (uint32_t cpu = 0; cpu < cpus; cpu++) {
    totals->locked_sum += shares[cpu].locked;
    totals->added_sum += shares[cpu].added;
  }
  load_set(was_on);
}
