// Proves that pages equal stored chunks: reads and verifies each frame once, and compares, on all cores. bench/store.ts
// justifies it.
//
//     claims (page, pack, generation, chunk) ──▶ sorted by frame ──▶ the pages that equal their chunk
//
// Thread: a page Worker, which works too and returns when all is compared. Helpers are page_pool.h's.
//
// Invariants:
// - A page is reported equal only if its bytes equal those of a chunk of exactly that generation, which passed its
//   checksum. Whatever else happens, it is not reported: the caller then looks itself, and learns the reason.
// - Nothing touches the caller's buffers after the call.
#include "page_proof.h"

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "errors.h"
#include "pack_directory.h"
#include "page_pool.h"

namespace livesnap {

// As in src/native/page-proof.ts.
struct Claim {
  uint32_t page, pack, generation, chunk;
};
static constexpr size_t kClaimWords = sizeof(Claim) / sizeof(uint32_t);

namespace {
// A page and where its chunk is: `index` of `frame`.
struct Place {
  const PackFile* pack;
  uint32_t frame, index, claim, page;

  bool isInFrameOf(const Place& other) const { return pack == other.pack && frame == other.frame; }
};

class Comparison : public PageJob {
 public:
  Comparison(std::vector<Place> places, std::vector<std::shared_ptr<const PackFile>> packs, const uint8_t* pages,
             uint8_t* same)
      : places_(std::move(places)), packs_(std::move(packs)), pages_(pages), same_(same) {
    for (size_t i = 0; i < places_.size(); i++)
      if (i == 0 || !places_[i].isInFrameOf(places_[i - 1])) frames_.push_back(i);
  }

  // Compares all. Returns when no other thread is in `run`.
  static void run(const std::shared_ptr<Comparison>& comparison) {
    auto& pool = PagePool::get();
    size_t helpers = std::min(pool.threads(), comparison->frames_.size() / kFramesPerHelper);
    for (size_t i = 0; i < helpers; i++) pool.submit(comparison, i + 1 == helpers);
    comparison->compareFrames();
    comparison->isClosed_ = true;
    if (helpers > 0) pool.waitUntil([&comparison] { return comparison->active_ == 0; });
  }

  void run() noexcept override {
    active_++;
    if (!isClosed_) compareFrames();
    active_--;
  }

 private:
  // Waking a thread takes as long as a frame or two.
  static constexpr size_t kFramesPerHelper = 4;

  void compareFrames() noexcept {
    std::unique_ptr<uint8_t[]> raw(new (std::nothrow) uint8_t[kFrameChunks * kPageBytes]);
    std::unique_ptr<uint8_t[]> stored(new (std::nothrow) uint8_t[kMaxFrameBytes]);
    if (raw == nullptr || stored == nullptr) return;
    for (size_t i = next_++; i < frames_.size(); i = next_++) {
      size_t end = i + 1 < frames_.size() ? frames_[i + 1] : places_.size();
      try {
        places_[frames_[i]].pack->readFrame(places_[frames_[i]].frame, raw.get(), stored.get());
      } catch (const ReadFailure&) {
        continue;
      } catch (const std::bad_alloc&) {
        continue;
      }
      for (size_t p = frames_[i]; p < end; p++)
        same_[places_[p].claim] = memcmp(raw.get() + places_[p].index * kPageBytes,
                                         pages_ + places_[p].page * kPageBytes, kPageBytes) == 0;
    }
  }

  const std::vector<Place> places_;
  const std::vector<std::shared_ptr<const PackFile>> packs_;  // keeps those of `places_` open
  std::vector<size_t> frames_;  // the first place of each frame
  const uint8_t* const pages_;
  uint8_t* const same_;
  std::atomic<size_t> next_{0}, active_{0};
  std::atomic<bool> isClosed_{false};
};
}  // namespace

// The pack as it is in exactly this generation. Null: it cannot be read.
static std::shared_ptr<const PackFile> packOf(PackDirectory& packs, uint32_t number, uint32_t generation) {
  try {
    packs.hint(number, generation);
    auto pack = packs.openPack(number);
    if (pack->generation == generation) return pack;
    packs.forget(number);
    packs.hint(number, generation);
    pack = packs.openPack(number);
    return pack->generation == generation ? pack : nullptr;
  } catch (const ReadFailure&) {
    return nullptr;
  }
}

using Held = std::shared_ptr<PackDirectory>;

static Held& heldArg(const Napi::CallbackInfo& info) {
  if (!info[0].IsExternal()) throwContract(info.Env(), "the first argument is the handle of a page proof");
  return *info[0].As<Napi::External<Held>>().Data();
}

// proofOpen(packsDir) → handle
static Napi::Value proofOpen(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) throwContract(info.Env(), "a path is not a string");
  auto packs = PackDirectory::open(info[0].As<Napi::String>().Utf8Value().c_str());
  if (packs == nullptr) throwErrno(info.Env(), "open", errno);
  return Napi::External<Held>::New(info.Env(), new Held(std::move(packs)), [](Napi::Env, Held* held) { delete held; });
}

// proofClose(handle): closes the packs that it alone uses.
static void proofClose(const Napi::CallbackInfo& info) { heldArg(info).reset(); }

// proofCompare(handle, pages, claims, count, same): same[i] is 1 if the page of claim i, a number within `pages`, equals
// its chunk, else 0.
static void proofCompare(const Napi::CallbackInfo& info) {
  Held packs = heldArg(info);
  if (packs == nullptr) throwContract(info.Env(), "the page proof is closed");
  Bytes pages = bytesArg(info, 1);
  auto [words, length] = elementsArg(info, 2, napi_uint32_array, "the claims are not a Uint32Array");
  auto count = static_cast<size_t>(integerArg(info, 3, 0, static_cast<int64_t>(length / kClaimWords)));
  Bytes same = bytesArg(info, 4);
  if (same.length < count) throwContract(info.Env(), "there is no room for the result");
  memset(same.data, 0, count);

  std::vector<Place> places;
  std::vector<std::shared_ptr<const PackFile>> opened;
  std::vector<uint32_t> unreadable;  // packs of this call
  places.reserve(count);
  for (uint32_t i = 0; i < count; i++) {
    Claim claim;
    memcpy(&claim, static_cast<const uint32_t*>(words) + i * kClaimWords, sizeof claim);
    if (claim.page >= pages.length / kPageBytes) throwContract(info.Env(), "a page is outside its buffer");
    bool isLast = !opened.empty() && opened.back()->number == claim.pack && opened.back()->generation == claim.generation;
    if (std::find(unreadable.begin(), unreadable.end(), claim.pack) != unreadable.end()) continue;
    auto pack = isLast ? opened.back() : packOf(*packs, claim.pack, claim.generation);
    if (pack == nullptr) {
      unreadable.push_back(claim.pack);
      continue;
    }
    try {
      auto at = pack->find(claim.chunk);
      places.push_back({pack.get(), at.frame, at.index, i, claim.page});
    } catch (const ReadFailure&) {
      continue;
    }
    if (!isLast) opened.push_back(std::move(pack));
  }
  if (places.empty()) return;
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.pack != b.pack ? a.pack < b.pack : a.frame < b.frame;
  });
  Comparison::run(std::make_shared<Comparison>(std::move(places), std::move(opened), pages.data, same.data));
}

void initPageProof(Napi::Env env, Napi::Object exports) {
  exports.Set("proofOpen", Napi::Function::New(env, proofOpen));
  exports.Set("proofClose", Napi::Function::New(env, proofClose));
  exports.Set("proofCompare", Napi::Function::New(env, proofCompare));
}

}  // namespace livesnap
