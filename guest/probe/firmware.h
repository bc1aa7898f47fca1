/* What the boot loader and the firmware tables describe: RAM, vCPUs, a random seed, the power-off port. */
#ifndef PROBE_FIRMWARE_H
#define PROBE_FIRMWARE_H

#include <stdint.h>

#include "layout.h"

#define MAX_RAM_RANGES 32

struct ram_range {
  uint64_t gpa; /* page-aligned, like the size */
  uint64_t size;
};

struct firmware {
  /* RAM from AREA_BASE on, ascending, without overlap. */
  struct ram_range ram[MAX_RAM_RANGES];
  uint32_t ram_ranges;
  uint32_t lapic_ids[MAX_CPUS];
  uint32_t cpus;
  uint16_t pm1a_control_port;
  /* Derived from SETUP_RNG_SEED, which is then wiped; 0 without it. */
  uint64_t seed;
};

/* Maps the RAM above 4 GiB. The image's own tables map the first 4 GiB. */
void memory_map(const struct ram_range *ranges, uint32_t count);

void firmware_read(struct firmware *firmware, uint64_t boot_params);

#endif
