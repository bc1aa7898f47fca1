/* The load of `load 1`: all vCPUs count under one lock, and by locked instructions. */
#ifndef PROBE_LOAD_H
#define PROBE_LOAD_H

#include <stdbool.h>
#include <stdint.h>

/* What the vCPUs have counted, each number twice: in shared words, and as the sum of what each vCPU knows of itself. */
struct load_totals {
  uint64_t locked, locked_sum;
  uint64_t added, added_sum;
  /* How often a TSC read under the lock was lower than the one read under it before. */
  uint64_t warps;
};

/* Begins or ends the load on all vCPUs. */
void load_set(bool on);
bool load_is_on(void);

/* Counts for some milliseconds, or until this vCPU has an interrupt pending. Returns at once while there is no load. */
void load_run(uint32_t cpu);

/* Stops the other vCPUs between two of their counts, adds up, and lets them continue. For the boot vCPU only. */
void load_read(uint32_t cpus, struct load_totals *totals);

#endif
