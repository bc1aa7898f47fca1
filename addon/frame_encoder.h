// Encodes the frames of packs (docs/format.md, "Frames") on all cores: a digest of each chunk, an LZ4 block of them all, the
// head of the frame and its checksum. bench/store.ts justifies it.
//
//     the caller fills a slot ──▶ submit ──▶ a thread of the pool encodes ──▶ the caller takes frame and digests
//
// A slot is a piece of one buffer, which the caller sees as an ArrayBuffer. Its layout is below.
//
// Threads: a page Worker fills slots, submits and waits; while it waits, it encodes too. The others are page_pool.h's.
//
// Invariants:
// - The caller does not write to a slot between its submission and its end.
// - A job holds the buffer, so the caller's environment may end at any time.
#pragma once
#include <napi.h>
#include <stddef.h>
#include <stdint.h>

#include <atomic>

#include "pack_file.h"

namespace livesnap {

constexpr size_t kFrameHeadBytes = 16;  // before the chunk numbers, a u16 each
constexpr size_t kDigestBytes = 32;
constexpr size_t kRawBytes = kFrameChunks * kPageBytes;

struct FrameSlot {
  // Written by the caller, except `state` and `storedBytes`.
  std::atomic<uint32_t> state;  // kIdle, kSubmitted, kEncoded or kFailed
  uint32_t storedBytes;         // of the payload
  uint32_t flags;               // in: those of an uncompressed frame; out: those of the frame
  uint32_t chunks;
  uint32_t hashed;         // bit i: the digest of chunk i is computed; the others are given
  uint32_t lz4Flag;        // added to the flags if the payload is an LZ4 block
  uint32_t maxCompressed;  // a longer LZ4 block is not used; 0: the frame has no payload
  uint32_t pack, index;    // the place of the frame, which seeds its checksum
  uint32_t effort;         // 0: LZ4; 1: LZ4-HC, whose blocks are smaller
  uint32_t digest;         // the ID of the digest of each chunk: kSha256 or kBlake3
  uint16_t numbers[kFrameChunks];
  uint32_t unused[13];
  uint8_t digests[kFrameChunks * kDigestBytes];
  alignas(64) uint8_t frame[kFrameHeadBytes + 2 * kFrameChunks + kRawBytes];
  alignas(64) uint8_t raw[kRawBytes];

  static constexpr uint32_t kSha256 = 0, kBlake3 = 1;
  static constexpr uint32_t kIdle = 0, kSubmitted = 1, kEncoded = 2, kFailed = 3;
};

void initFrameEncoder(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
