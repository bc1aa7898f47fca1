/*
 * Reads boot_params (Documentation/arch/x86/zero-page.rst), its e820 map and setup_data, and finds the vCPUs in
 * ACPI's MADT (ACPI 6.5, 5.2.12) or else in the MP table (MultiProcessor Specification 1.4, chapter 4).
 */
#include "firmware.h"

#include <stdbool.h>
#include <stddef.h>

#include "pages.h"

#define BP_ACPI_RSDP 0x070
#define BP_E820_ENTRIES 0x1e8
#define BP_SETUP_DATA 0x250
#define BP_E820_TABLE 0x2d0
#define E820_ENTRY_SIZE 20
#define E820_MAX_ENTRIES 128
#define E820_RAM 1
#define SETUP_RNG_SEED 9
#define MAX_SETUP_DATA 64

#define EBDA_SEGMENT 0x40e
#define BIOS_BASE 0xe0000
#define BIOS_END 0x100000
#define LOW_RAM_TOP 0x9fc00
#define PAGE_TABLE 0x07 /* present, writable, user */
#define PAGE_LARGE 0x87
#define DEFAULT_PM1A_CONTROL_PORT 0x604

/* Hides the address from the compiler, for which the first page holds no objects. */
static const uint8_t *at(uint64_t gpa) {
  __asm__("" : "+r"(gpa));
  return (const uint8_t *)gpa;
}

static uint64_t load(const uint8_t *p, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
  return value;
}

static bool has_signature(const uint8_t *p, const char *signature) {
  for (; *signature; p++, signature++)
    if (*p != (uint8_t)*signature) return false;
  return true;
}

static bool sums_to_zero(const uint8_t *p, uint32_t bytes) {
  uint8_t sum = 0;
  while (bytes--) sum += *p++;
  return sum == 0;
}

static void read_ram(struct firmware *f, const uint8_t *bp) {
  uint32_t entries = bp[BP_E820_ENTRIES];
  uint64_t limit = (uint64_t)MAX_MAPPED_GIB << 30;
  if (entries > E820_MAX_ENTRIES) entries = E820_MAX_ENTRIES;
  for (uint64_t from = AREA_BASE; f->ram_ranges < MAX_RAM_RANGES;) {
    struct ram_range next = {limit, 0};
    for (uint32_t i = 0; i < entries; i++) {
      const uint8_t *entry = bp + BP_E820_TABLE + i * E820_ENTRY_SIZE;
      if (load(entry + 16, 4) != E820_RAM) continue;
      uint64_t start = load(entry, 8), size = load(entry + 8, 8);
      uint64_t end = size > limit || start > limit - size ? limit : start + size;
      start = start < from ? from : (start + 4095) & ~4095ull;
      end &= ~4095ull;
      if (start < end && start < next.gpa) next = (struct ram_range){start, end - start};
    }
    if (!next.size) break;
    f->ram[f->ram_ranges++] = next;
    from = next.gpa + next.size;
  }
}

static void read_setup_data(struct firmware *f, const uint8_t *bp) {
  uint64_t gpa = load(bp + BP_SETUP_DATA, 8);
  for (int i = 0; gpa && i < MAX_SETUP_DATA; i++) {
    uint8_t *data = (uint8_t *)gpa;
    uint32_t bytes = (uint32_t)load(data + 12, 4);
    if (load(data + 8, 4) == SETUP_RNG_SEED)
      for (uint32_t n = 0; n < bytes; n++) {
        f->seed = mix64(f->seed ^ data[16 + n]);
        data[16 + n] = 0;
      }
    gpa = load(data, 8);
  }
}

static void add_cpu(struct firmware *f, uint32_t lapic_id) {
  if (f->cpus < MAX_CPUS) f->lapic_ids[f->cpus++] = lapic_id;
}

static const uint8_t *scan(uint64_t from, uint64_t to, const char *signature, uint32_t bytes) {
  for (uint64_t gpa = from; gpa + bytes <= to; gpa += 16)
    if (has_signature(at(gpa), signature) && sums_to_zero(at(gpa), bytes)) return at(gpa);
  return NULL;
}

static const uint8_t *find_table(const char *signature, uint32_t bytes) {
  const uint8_t *found = scan(BIOS_BASE, BIOS_END, signature, bytes);
  if (!found) found = scan(LOW_RAM_TOP, LOW_RAM_TOP + 1024, signature, bytes);
  uint64_t ebda = load(at(EBDA_SEGMENT), 2) << 4;
  if (!found && ebda) found = scan(ebda, ebda + 1024, signature, bytes);
  return found;
}

static void read_madt(struct firmware *f, const uint8_t *madt) {
  uint32_t bytes = (uint32_t)load(madt + 4, 4);
  for (uint32_t offset = 44; offset + 2 <= bytes && madt[offset + 1] >= 2; offset += madt[offset + 1]) {
    const uint8_t *entry = madt + offset;
    if (entry[0] == 0 && (load(entry + 4, 4) & 1)) add_cpu(f, entry[3]);
    if (entry[0] == 9 && (load(entry + 8, 4) & 1)) add_cpu(f, (uint32_t)load(entry + 4, 4));
  }
}

static void read_acpi(struct firmware *f, const uint8_t *bp) {
  uint64_t gpa = load(bp + BP_ACPI_RSDP, 8);
  const uint8_t *rsdp = gpa && has_signature(at(gpa), "RSD PTR ") ? at(gpa) : find_table("RSD PTR ", 20);
  if (!rsdp) return;
  bool extended = rsdp[15] >= 2;
  const uint8_t *root = extended ? at(load(rsdp + 24, 8)) : at(load(rsdp + 16, 4));
  if (!has_signature(root, extended ? "XSDT" : "RSDT")) return;
  int entry_size = extended ? 8 : 4;
  uint32_t bytes = (uint32_t)load(root + 4, 4);
  for (uint32_t offset = 36; offset + entry_size <= bytes; offset += entry_size) {
    const uint8_t *table = at(load(root + offset, entry_size));
    if (has_signature(table, "APIC")) read_madt(f, table);
    if (has_signature(table, "FACP") && load(table + 64, 4)) f->pm1a_control_port = (uint16_t)load(table + 64, 4);
  }
}

static void read_mp_table(struct firmware *f) {
  const uint8_t *pointer = find_table("_MP_", 16);
  if (!pointer) return;
  const uint8_t *table = at(load(pointer + 4, 4));
  if (!has_signature(table, "PCMP")) return;
  const uint8_t *entry = table + 44;
  for (uint32_t left = (uint32_t)load(table + 34, 2); left; left--) {
    if (entry[0] == 0 && (entry[3] & 1)) add_cpu(f, entry[1]);
    entry += entry[0] == 0 ? 20 : 8;
  }
}

void firmware_read(struct firmware *f, uint64_t boot_params) {
  const uint8_t *bp = at(boot_params);
  *f = (struct firmware){.pm1a_control_port = DEFAULT_PM1A_CONTROL_PORT};
  read_ram(f, bp);
  read_setup_data(f, bp);
  read_acpi(f, bp);
  if (!f->cpus) read_mp_table(f);
}

extern uint64_t pdpt[];

void memory_map(const struct ram_range *ranges, uint32_t count) {
  uint64_t *directory = (uint64_t *)TABLE_POOL;
  for (uint32_t i = 0; i < count; i++)
    for (uint64_t gib = ranges[i].gpa >> 30; gib <= (ranges[i].gpa + ranges[i].size - 1) >> 30; gib++) {
      if (pdpt[gib]) continue;
      for (uint64_t n = 0; n < 512; n++) directory[n] = gib << 30 | n << 21 | PAGE_LARGE;
      pdpt[gib] = (uintptr_t)directory | PAGE_TABLE;
      directory += 512;
    }
}
