/* The contents of the pages that the probe writes, and their sum. The host's tests compile these functions too. */
#ifndef PROBE_PAGES_H
#define PROBE_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 4096

/* The finalizer of SplitMix64: a bijection that spreads each bit over all. */
static inline uint64_t mix64(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

/* Page `index` of `fill SEED`: 512 little-endian words of SplitMix64. */
void page_fill(void *page, uint64_t seed, uint64_t index);

/* Page `index` of `text SEED`: lines of words. The first line has seed and index, so no two pages are equal. */
void page_text(void *page, uint64_t seed, uint64_t index);

/* XXH64 with seed 0, over whole pages only. */
struct xxh64 {
  uint64_t lane[4];
  uint64_t bytes;
};

void xxh64_start(struct xxh64 *state);
void xxh64_page(struct xxh64 *state, const void *page);
uint64_t xxh64_end(const struct xxh64 *state);

/* Writes `value` in decimal to `text` (20 bytes at most, no terminator); returns its length. */
size_t format_decimal(char *text, uint64_t value);

#endif
