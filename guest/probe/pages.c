/*
 * Page contents and their sum (pages.h). README.md specifies them, so that a test can compute them. They are the same on
 * every machine. SplitMix64: Steele, Lea, Flood, OOPSLA 2014. XXH64: the xxHash specification (xxhash_spec.md).
 */
#include "pages.h"

#include <string.h>

#define GOLDEN_GAMMA 0x9e3779b97f4a7c15

static uint64_t first_state(uint64_t seed, uint64_t index) { return mix64(mix64(seed + GOLDEN_GAMMA) + index); }

static uint64_t next(uint64_t *state) { return mix64(*state += GOLDEN_GAMMA); }

void page_fill(void *page, uint64_t seed, uint64_t index) {
  uint64_t state = first_state(seed, index), *word = page;
  for (int i = 0; i < PAGE_SIZE / 8; i++) word[i] = next(&state);
}

size_t format_decimal(char *text, uint64_t value) {
  char digits[20];
  size_t length = 0;
  do digits[length++] = (char)('0' + value % 10);
  while (value /= 10);
  for (size_t i = 0; i < length; i++) text[i] = digits[length - 1 - i];
  return length;
}

static const char words[64][8] = {
    "the",   "of",    "and",    "to",    "in",    "page",  "is",    "that",  "it",    "memory", "was",
    "for",   "on",    "are",    "with",  "as",    "they",  "be",    "at",    "one",   "have",   "this",
    "from",  "or",    "had",    "by",    "word",  "but",   "not",   "what",  "all",   "were",   "we",
    "when",  "your",  "can",    "said",  "there", "use",   "an",    "each",  "which", "she",    "do",
    "how",   "their", "if",     "will",  "up",    "other", "about", "out",   "many",  "then",   "them",
    "these", "so",    "some",   "her",   "would", "make",  "like",  "him",   "into",
};

void page_text(void *page, uint64_t seed, uint64_t index) {
  char *text = page;
  size_t used = 0;
  memcpy(text, "text ", 5);
  used = 5 + format_decimal(text + 5, seed);
  memcpy(text + used, " page ", 6);
  used += 6;
  used += format_decimal(text + used, index);
  text[used++] = '\n';
  uint64_t state = first_state(seed, index), bits = 0;
  for (int n = 0; used < PAGE_SIZE; n++) {
    if (n % 10 == 0) bits = next(&state);
    const char *word = words[bits & 63];
    bits >>= 6;
    while (*word && used < PAGE_SIZE) text[used++] = *word++;
    if (used < PAGE_SIZE) text[used++] = n % 12 == 11 ? '\n' : ' ';
  }
}

#define PRIME1 0x9e3779b185ebca87
#define PRIME2 0xc2b2ae3d27d4eb4f
#define PRIME3 0x165667b19e3779f9
#define PRIME4 0x85ebca77c2b2ae63

static uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static uint64_t round64(uint64_t lane, uint64_t word) { return rotate(lane + word * PRIME2, 31) * PRIME1; }

void xxh64_start(struct xxh64 *s) { *s = (struct xxh64){{PRIME1 + PRIME2, PRIME2, 0, -PRIME1}, 0}; }

void xxh64_page(struct xxh64 *s, const void *page) {
  const uint64_t *word = page;
  uint64_t a = s->lane[0], b = s->lane[1], c = s->lane[2], d = s->lane[3];
  for (int i = 0; i < PAGE_SIZE / 8; i += 4) {
    a = round64(a, word[i]);
    b = round64(b, word[i + 1]);
    c = round64(c, word[i + 2]);
    d = round64(d, word[i + 3]);
  }
  *s = (struct xxh64){{a, b, c, d}, s->bytes + PAGE_SIZE};
}

uint64_t xxh64_end(const struct xxh64 *s) {
  static const int shifts[4] = {1, 7, 12, 18};
  uint64_t hash = 0;
  for (int i = 0; i < 4; i++) hash += rotate(s->lane[i], shifts[i]);
  for (int i = 0; i < 4; i++) hash = (hash ^ round64(0, s->lane[i])) * PRIME1 + PRIME4;
  hash += s->bytes;
  hash = (hash ^ hash >> 33) * PRIME2;
  hash = (hash ^ hash >> 29) * PRIME3;
  return hash ^ hash >> 32;
}
