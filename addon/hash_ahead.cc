// Fingerprints of a batch of pages, computed by the page pool while the caller works on an earlier batch. Without this a save
// of known pages hashes on one thread while the others have nothing to do (bench/README.md).
//
//     pages ──▶ two jobs of the page pool ──▶ hashes
//
// Threads: begin and end are of one JS thread. Jobs run on any thread of page_pool.h.
//
// Invariants:
// - The buffers stay allocated until both jobs have run, also when the JS thread ends earlier.
// - After hashAheadEnd no job touches the buffers.
#include "hash_ahead.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "errors.h"
#include "page_pool.h"
#include "pages.h"

namespace livesnap {

static constexpr size_t kPageSize = 4096;

namespace {
class HashPart : public PageJob {
 public:
  HashPart(const uint8_t* pages, size_t count, uint8_t* hashes) : pages_(pages), count_(count), hashes_(hashes) {}

  void run() noexcept override {
    for (size_t i = 0; i < count_; i++) {
      uint64_t hash = hashPage(pages_ + i * kPageSize);
      memcpy(hashes_ + i * sizeof hash, &hash, sizeof hash);
    }
    isDone_ = true;
  }

  bool isDone() const { return isDone_; }

 private:
  const uint8_t* const pages_;
  const size_t count_;
  uint8_t* const hashes_;
  std::atomic<bool> isDone_{false};
};

// The jobs of a batch, and its buffers.
class HashAhead {
 public:
  HashAhead(Napi::Object pages, Napi::Object hashes)
      : pages_(Napi::Persistent(pages)), hashes_(Napi::Persistent(hashes)) {}
  ~HashAhead() { wait(); }
  HashAhead(const HashAhead&) = delete;
  HashAhead& operator=(const HashAhead&) = delete;

  void begin(const uint8_t* pages, size_t count, uint8_t* hashes) {
    size_t half = (count + 1) / 2;
    for (size_t first = 0; first < count; first += half) {
      size_t some = std::min(half, count - first);
      auto part = std::make_shared<HashPart>(pages + first * kPageSize, some, hashes + first * sizeof(uint64_t));
      parts_[first == 0 ? 0 : 1] = part;
      // No thread is woken for it: the pool's next work does, and `wait` runs what is left.
      PagePool::get().submit(std::move(part), false);
    }
  }

  void wait() {
    PagePool::get().helpUntil([this] {
      return std::all_of(std::begin(parts_), std::end(parts_),
                         [](const std::shared_ptr<HashPart>& part) { return part == nullptr || part->isDone(); });
    });
  }

 private:
  Napi::ObjectReference pages_, hashes_;
  std::shared_ptr<HashPart> parts_[2];
};
}  // namespace

using Held = std::unique_ptr<HashAhead>;

// hashAheadBegin(pages, count, hashes) → handle. As hashPages of pages.cc. The buffers are in use until hashAheadEnd.
static Napi::Value hashAheadBegin(const Napi::CallbackInfo& info) {
  Bytes pages = bytesArg(info, 0), hashes = bytesArg(info, 2);
  int64_t most = static_cast<int64_t>(std::min(pages.length / kPageSize, hashes.length / sizeof(uint64_t)));
  auto count = static_cast<size_t>(integerArg(info, 1, 0, most));
  auto ahead = std::make_unique<HashAhead>(info[0].As<Napi::Object>(), info[2].As<Napi::Object>());
  ahead->begin(pages.data, count, hashes.data);
  return Napi::External<Held>::New(info.Env(), new Held(std::move(ahead)), [](Napi::Env, Held* held) { delete held; });
}

// hashAheadEnd(handle): returns when all hashes are there.
static void hashAheadEnd(const Napi::CallbackInfo& info) {
  if (!info[0].IsExternal()) throwContract(info.Env(), "the first argument is the handle of hashes");
  info[0].As<Napi::External<Held>>().Data()->reset();
}

void initHashAhead(Napi::Env env, Napi::Object exports) {
  exports.Set("hashAheadBegin", Napi::Function::New(env, hashAheadBegin));
  exports.Set("hashAheadEnd", Napi::Function::New(env, hashAheadEnd));
}

}  // namespace livesnap
