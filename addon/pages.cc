// Page work in batches: zero scan, XXH64, BLAKE3, comparison and LZ4 blocks. It is several times faster than xxhash-wasm and
// lz4-napi (bench/pages.ts). Runs on the calling JS thread.
//
// Invariants: it touches only the given buffers, keeps no state, and checks every range before it reads or writes.
#include "pages.h"

#include <string.h>

#include <algorithm>
#include <memory>

#define XXH_INLINE_ALL
#include "blake3_pages.h"
#include "errors.h"
#include "third_party/lz4/lz4.h"
#include "third_party/lz4/lz4hc.h"
#include "third_party/xxhash/xxhash.h"

namespace livesnap {

static constexpr size_t kPageSize = 4096;
static constexpr int64_t kMaxLength = 1 << 30;

// The bytes [offset, offset + length) of a buffer, or a contract error.
static uint8_t* rangeOf(const Napi::CallbackInfo& info, size_t index, int64_t offset, int64_t length) {
  Bytes bytes = bytesArg(info, index);
  if (static_cast<uint64_t>(offset) + static_cast<uint64_t>(length) > bytes.length)
    throwContract(info.Env(), "a range is outside its buffer");
  return bytes.data + offset;
}

static bool isZeroPage(const uint8_t* page) {
  // Most pages that are not zero differ early, so the first 64 bytes are compared first.
  static const uint8_t zeros[64] = {};
  return memcmp(page, zeros, sizeof zeros) == 0 && memcmp(page, page + 64, kPageSize - 64) == 0;
}

uint64_t hashPage(const uint8_t* page) {
  if (isZeroPage(page)) return 0;
  uint64_t hash = XXH64(page, kPageSize, 0);
  return hash != 0 ? hash : 1;
}

// hashPages(bytes, count, hashes): hashes[i], 8 little-endian bytes, is hashPage of page i.
static void hashPages(const Napi::CallbackInfo& info) {
  int64_t count = integerArg(info, 1, 0, kMaxLength / static_cast<int64_t>(kPageSize));
  const uint8_t* pages = rangeOf(info, 0, 0, count * static_cast<int64_t>(kPageSize));
  uint8_t* hashes = rangeOf(info, 2, 0, count * 8);
  for (int64_t i = 0; i < count; i++) {
    uint64_t hash = hashPage(pages + i * static_cast<int64_t>(kPageSize));
    memcpy(hashes + i * 8, &hash, 8);
  }
}

// blake3(bytes, count, digests): digests[i], 32 bytes, is the BLAKE3 of page i.
static void blake3(const Napi::CallbackInfo& info) {
  int64_t count = integerArg(info, 1, 0, kMaxLength / static_cast<int64_t>(kPageSize));
  const uint8_t* bytes = rangeOf(info, 0, 0, count * static_cast<int64_t>(kPageSize));
  uint8_t* digests = rangeOf(info, 2, 0, count * static_cast<int64_t>(kBlake3Bytes));
  const uint8_t* pages[kBlake3Pages];
  size_t total = static_cast<size_t>(count);
  for (size_t done = 0; done < total; done += kBlake3Pages) {
    size_t some = std::min(kBlake3Pages, total - done);
    for (size_t i = 0; i < some; i++) pages[i] = bytes + (done + i) * kPageSize;
    blake3Pages(pages, some, digests + done * kBlake3Bytes);
  }
}

// checksum(bytes, offset, length, seedLow, seedHigh, out): out is the XXH64, 8 little-endian bytes.
static void checksum(const Napi::CallbackInfo& info) {
  int64_t offset = integerArg(info, 1, 0, kMaxLength), length = integerArg(info, 2, 0, kMaxLength);
  const uint8_t* data = rangeOf(info, 0, offset, length);
  uint64_t seed = static_cast<uint64_t>(integerArg(info, 3, 0, UINT32_MAX)) |
                  static_cast<uint64_t>(integerArg(info, 4, 0, UINT32_MAX)) << 32;
  uint64_t hash = XXH64(data, static_cast<size_t>(length), seed);
  memcpy(rangeOf(info, 5, 0, 8), &hash, 8);
}

// The state of a checksum in parts. The caller keeps it in a buffer of at least checksumStateBytes, so nothing is to be
// freed. It is copied in and out, because a buffer may have any alignment.
static XXH64_state_t stateOf(const Napi::CallbackInfo& info) {
  XXH64_state_t state;
  memcpy(&state, rangeOf(info, 0, 0, sizeof state), sizeof state);
  if (state.memsize >= sizeof state.mem64) throwContract(info.Env(), "this is not the state of a checksum");
  return state;
}

// checksumBegin(state)
static void checksumBegin(const Napi::CallbackInfo& info) {
  XXH64_state_t state;
  memset(&state, 0, sizeof state);
  XXH64_reset(&state, 0);
  memcpy(rangeOf(info, 0, 0, sizeof state), &state, sizeof state);
}

// checksumUpdate(state, bytes, length)
static void checksumUpdate(const Napi::CallbackInfo& info) {
  XXH64_state_t state = stateOf(info);
  int64_t length = integerArg(info, 2, 0, kMaxLength);
  XXH64_update(&state, rangeOf(info, 1, 0, length), static_cast<size_t>(length));
  memcpy(rangeOf(info, 0, 0, sizeof state), &state, sizeof state);
}

// checksumEnd(state, out): out is the XXH64, 8 little-endian bytes.
static void checksumEnd(const Napi::CallbackInfo& info) {
  XXH64_state_t state = stateOf(info);
  uint64_t hash = XXH64_digest(&state);
  memcpy(rangeOf(info, 1, 0, 8), &hash, 8);
}

// equal(a, aOffset, b, bOffset, length) → boolean
static Napi::Value equal(const Napi::CallbackInfo& info) {
  int64_t length = integerArg(info, 4, 0, kMaxLength);
  const uint8_t* a = rangeOf(info, 0, integerArg(info, 1, 0, kMaxLength), length);
  const uint8_t* b = rangeOf(info, 2, integerArg(info, 3, 0, kMaxLength), length);
  return Napi::Boolean::New(info.Env(), memcmp(a, b, static_cast<size_t>(length)) == 0);
}

size_t compressBlock(const uint8_t* source, size_t length, uint8_t* target, size_t capacity, bool isHigh) {
  auto from = reinterpret_cast<const char*>(source);
  auto to = reinterpret_cast<char*>(target);
  auto bytes = static_cast<int>(length), most = static_cast<int>(capacity);
  if (isHigh) {
    // 256 KiB, which a thread keeps until it ends. Without memory for it the block is larger, and as valid.
    using State = std::unique_ptr<LZ4_streamHC_t, int (*)(LZ4_streamHC_t*)>;
    thread_local State state(LZ4_createStreamHC(), LZ4_freeStreamHC);
    if (state != nullptr)
      return static_cast<size_t>(LZ4_compress_HC_extStateHC(state.get(), from, to, bytes, most, LZ4HC_CLEVEL_DEFAULT));
  }
  return static_cast<size_t>(LZ4_compress_default(from, to, bytes, most));
}

// compress(source, length, target, targetOffset, capacity, isHigh) → bytes written; 0 when they exceed `capacity`.
static Napi::Value compress(const Napi::CallbackInfo& info) {
  int64_t length = integerArg(info, 1, 1, LZ4_MAX_INPUT_SIZE), capacity = integerArg(info, 4, 1, kMaxLength);
  const uint8_t* source = rangeOf(info, 0, 0, length);
  uint8_t* target = rangeOf(info, 2, integerArg(info, 3, 0, kMaxLength), capacity);
  size_t written = compressBlock(source, static_cast<size_t>(length), target, static_cast<size_t>(capacity),
                                 info[5].ToBoolean());
  return Napi::Number::New(info.Env(), static_cast<double>(written));
}

// decompress(source, sourceOffset, sourceLength, target, targetOffset, targetLength) → boolean: true when the block
// is well formed and unpacks to exactly `targetLength` bytes.
static Napi::Value decompress(const Napi::CallbackInfo& info) {
  int64_t sourceLength = integerArg(info, 2, 0, kMaxLength), targetLength = integerArg(info, 5, 0, kMaxLength);
  const uint8_t* source = rangeOf(info, 0, integerArg(info, 1, 0, kMaxLength), sourceLength);
  uint8_t* target = rangeOf(info, 3, integerArg(info, 4, 0, kMaxLength), targetLength);
  int written = LZ4_decompress_safe(reinterpret_cast<const char*>(source), reinterpret_cast<char*>(target),
                                    static_cast<int>(sourceLength), static_cast<int>(targetLength));
  return Napi::Boolean::New(info.Env(), written == targetLength);
}

void initPages(Napi::Env env, Napi::Object exports) {
  prepareBlake3();
  exports.Set("hashPages", Napi::Function::New(env, hashPages));
  exports.Set("blake3", Napi::Function::New(env, blake3));
  exports.Set("checksum", Napi::Function::New(env, checksum));
  exports.Set("checksumStateBytes", Napi::Number::New(env, sizeof(XXH64_state_t)));
  exports.Set("checksumBegin", Napi::Function::New(env, checksumBegin));
  exports.Set("checksumUpdate", Napi::Function::New(env, checksumUpdate));
  exports.Set("checksumEnd", Napi::Function::New(env, checksumEnd));
  exports.Set("equal", Napi::Function::New(env, equal));
  exports.Set("compress", Napi::Function::New(env, compress));
  exports.Set("decompress", Napi::Function::New(env, decompress));
}

}  // namespace livesnap
