#include "blake3_pages.h"

#include <assert.h>
#include <string.h>

extern "C" {
#include "third_party/blake3/blake3_impl.h"
}

namespace livesnap {

// The tree of a page (BLAKE3 specification, section 2.1): four leaves of 1024 bytes, two parents, and the root.
static constexpr size_t kLeaves = 4, kLeafBytes = BLAKE3_CHUNK_LEN, kLeafBlocks = BLAKE3_CHUNK_LEN / BLAKE3_BLOCK_LEN;
static_assert(kBlake3Bytes == BLAKE3_OUT_LEN && 2 * BLAKE3_OUT_LEN == BLAKE3_BLOCK_LEN, "a parent is one block");

void prepareBlake3() { blake3_simd_degree(); }

// Hashes blocks that are each all of an inner node. The two children of a node lie beside each other.
static void hashParents(const uint8_t* const* nodes, size_t count, uint8_t flags, uint8_t* out) {
  blake3_hash_many(nodes, count, 1, IV, 0, false, PARENT | flags, 0, 0, out);
}

void blake3Pages(const uint8_t* const* pages, size_t count, uint8_t* digests) {
  assert(count <= kBlake3Pages);
  uint8_t leaves[kLeaves][kBlake3Pages][BLAKE3_OUT_LEN];
  const uint8_t* inputs[2 * kBlake3Pages];
  // The number of a leaf is an input of its hash. So leaf n of all pages is hashed at once, not all leaves of a page.
  for (size_t leaf = 0; leaf < kLeaves; leaf++) {
    for (size_t i = 0; i < count; i++) inputs[i] = pages[i] + leaf * kLeafBytes;
    blake3_hash_many(inputs, count, kLeafBlocks, IV, leaf, false, 0, CHUNK_START, CHUNK_END, leaves[leaf][0]);
  }
  uint8_t pairs[2 * kBlake3Pages][BLAKE3_BLOCK_LEN];
  for (size_t i = 0; i < count; i++)
    for (size_t leaf = 0; leaf < kLeaves; leaf++)
      memcpy(pairs[2 * i + leaf / 2] + leaf % 2 * BLAKE3_OUT_LEN, leaves[leaf][i], BLAKE3_OUT_LEN);
  for (size_t i = 0; i < 2 * count; i++) inputs[i] = pairs[i];
  uint8_t roots[kBlake3Pages][BLAKE3_BLOCK_LEN];
  hashParents(inputs, 2 * count, 0, roots[0]);
  for (size_t i = 0; i < count; i++) inputs[i] = roots[i];
  hashParents(inputs, count, ROOT, digests);
}

}  // namespace livesnap
