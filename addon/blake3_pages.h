// BLAKE3 of whole pages: the digest of chunks in new packs (docs/format.md, "Digests"). Any thread.
//
// The caller may be outside the addon: bench/limit/pipeline.cc uses it, too.
#pragma once
#include <cstddef>
#include <cstdint>

namespace livesnap {

constexpr size_t kBlake3Pages = 16;  // the most pages of one call
constexpr size_t kBlake3Bytes = 32;  // of a digest

// Finds out which instructions the processor has. To be called before threads hash, because BLAKE3 keeps the answer in a
// variable without a lock.
void prepareBlake3();

// Writes the BLAKE3 of each of `count` pages of 4096 bytes, one after the other, to `digests`. Most pages of a call are
// hashed at the same time, one in each lane of a vector register. So 16 pages take less time than 16 calls.
void blake3Pages(const uint8_t* const* pages, size_t count, uint8_t* digests);

}  // namespace livesnap
