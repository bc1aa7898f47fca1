#include "frame_encoder.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <memory>
#include <utility>

#define XXH_INLINE_ALL
#include "blake3_pages.h"
#include "errors.h"
#include "page_pool.h"
#include "pages.h"
#include "third_party/xxhash/xxhash.h"

namespace livesnap {

// SHA-256 of Node's own OpenSSL, which has the fastest code for each processor. Its functions are found by name, because
// an addon is built without OpenSSL's headers.
class Sha256 {
 public:
  static bool isThere() { return functions().isThere; }

  Sha256() : context_(functions().newContext()) {}
  ~Sha256() { functions().freeContext(context_); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  bool hash(const uint8_t* bytes, size_t length, uint8_t* digest) {
    const Functions& f = functions();
    return context_ != nullptr && f.init(context_, f.algorithm, nullptr) == 1 && f.update(context_, bytes, length) == 1 &&
           f.final(context_, digest, nullptr) == 1;
  }

 private:
  struct Functions {
    void* (*newContext)() = nullptr;
    void (*freeContext)(void*) = nullptr;
    int (*init)(void*, const void*, void*) = nullptr;
    int (*update)(void*, const void*, size_t) = nullptr;
    int (*final)(void*, unsigned char*, unsigned*) = nullptr;
    const void* algorithm = nullptr;
    bool isThere = false;

    template <typename T>
    static bool find(const char* name, T& function) {
      function = reinterpret_cast<T>(dlsym(RTLD_DEFAULT, name));
      return function != nullptr;
    }

    Functions() {
      // Fetched once: EVP_sha256() looks it up anew with each use (OpenSSL 3, EVP_MD_fetch(3)).
      void* (*fetch)(void*, const char*, const char*) = nullptr;
      const void* (*sha256)() = nullptr;
      if (find("EVP_MD_fetch", fetch)) algorithm = fetch(nullptr, "SHA256", nullptr);
      if (algorithm == nullptr && find("EVP_sha256", sha256)) algorithm = sha256();
      isThere = algorithm != nullptr && find("EVP_MD_CTX_new", newContext) && find("EVP_MD_CTX_free", freeContext) &&
                find("EVP_DigestInit_ex", init) && find("EVP_DigestUpdate", update) && find("EVP_DigestFinal_ex", final);
    }
  };

  static const Functions& functions() {
    static const Functions found;
    return found;
  }

  void* context_;
};

// Writes the digests of the chunks whose bit in `hashed` is set.
static bool hashChunks(FrameSlot& slot, Sha256& sha256) {
  const uint8_t* pages[kFrameChunks];
  uint8_t* digests[kFrameChunks];
  size_t count = 0;
  for (size_t i = 0; i < slot.chunks; i++) {
    if ((slot.hashed >> i & 1) == 0) continue;
    pages[count] = slot.raw + i * kPageBytes;
    digests[count++] = slot.digests + i * kDigestBytes;
  }
  if (slot.digest == FrameSlot::kSha256) {
    for (size_t i = 0; i < count; i++)
      if (!sha256.hash(pages[i], kPageBytes, digests[i])) return false;
    return true;
  }
  static_assert(kFrameChunks <= kBlake3Pages && kDigestBytes == kBlake3Bytes, "one call hashes a frame");
  uint8_t found[kFrameChunks][kDigestBytes];
  blake3Pages(pages, count, found[0]);
  for (size_t i = 0; i < count; i++) memcpy(digests[i], found[i], kDigestBytes);
  return true;
}

static bool encode(FrameSlot& slot, Sha256& sha256) {
  size_t rawBytes = slot.chunks * kPageBytes;
  if (!hashChunks(slot, sha256)) return false;
  uint8_t* payload = slot.frame + kFrameHeadBytes + 2 * slot.chunks;
  uint32_t stored = 0;
  if (slot.maxCompressed > 0) {
    stored = static_cast<uint32_t>(compressBlock(slot.raw, rawBytes, payload, slot.maxCompressed, slot.effort != 0));
    if (stored > 0) {
      slot.flags |= slot.lz4Flag;
    } else {
      memcpy(payload, slot.raw, rawBytes);
      stored = static_cast<uint32_t>(rawBytes);
    }
  }
  slot.storedBytes = stored;
  auto chunks = static_cast<uint16_t>(slot.chunks);
  auto flags = static_cast<uint16_t>(slot.flags);
  memcpy(slot.frame + 8, &stored, 4);
  memcpy(slot.frame + 12, &chunks, 2);
  memcpy(slot.frame + 14, &flags, 2);
  memcpy(slot.frame + kFrameHeadBytes, slot.numbers, 2 * slot.chunks);
  uint64_t seed = uint64_t{slot.index} << 32 | slot.pack;
  uint64_t checksum = XXH64(slot.frame + 8, kFrameHeadBytes + 2 * slot.chunks + stored - 8, seed);
  memcpy(slot.frame, &checksum, 8);
  return true;
}

// The slots of one encoder. Pages that were never used take no memory.
class FrameSlots {
 public:
  explicit FrameSlots(size_t count) : count_(count) {
    void* mapping = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    slots_ = mapping == MAP_FAILED ? nullptr : static_cast<FrameSlot*>(mapping);
  }
  ~FrameSlots() {
    if (slots_ != nullptr) munmap(slots_, bytes());
  }
  FrameSlots(const FrameSlots&) = delete;
  FrameSlots& operator=(const FrameSlots&) = delete;

  size_t bytes() const { return count_ * sizeof(FrameSlot); }
  size_t count() const { return count_; }
  FrameSlot* begin() const { return slots_; }  // null: there was no memory

 private:
  const size_t count_;
  FrameSlot* slots_;
};

// Encodes one slot. It holds the buffer of the slot.
class EncodeJob : public PageJob {
 public:
  EncodeJob(std::shared_ptr<FrameSlots> slots, FrameSlot& slot) : slots_(std::move(slots)), slot_(slot) {}

  void run() noexcept override {
    thread_local Sha256 sha256;
    slot_.state.store(encode(slot_, sha256) ? FrameSlot::kEncoded : FrameSlot::kFailed);
  }

 private:
  std::shared_ptr<FrameSlots> slots_;
  FrameSlot& slot_;
};

using Held = std::shared_ptr<FrameSlots>;

static void release(Napi::Env, Held* held) { delete held; }

// frameSlots(count) → [handle, ArrayBuffer of `count` slots], or null: this Node has no SHA-256 that the addon can call.
static Napi::Value frameSlots(const Napi::CallbackInfo& info) {
  auto count = static_cast<size_t>(integerArg(info, 0, 1, 1024));
  if (!Sha256::isThere()) return info.Env().Null();
  auto slots = std::make_shared<FrameSlots>(count);
  if (slots->begin() == nullptr) throwErrno(info.Env(), "mmap", ENOMEM);
  auto result = Napi::Array::New(info.Env(), 2);
  result.Set(0u, Napi::External<Held>::New(info.Env(), new Held(slots), release));
  result.Set(1u, Napi::ArrayBuffer::New(
                     info.Env(), slots->begin(), slots->bytes(),
                     [](Napi::Env env, void*, Held* held) { release(env, held); }, new Held(slots)));
  return result;
}

static FrameSlot& slotArg(const Napi::CallbackInfo& info, Held** held) {
  if (!info[0].IsExternal()) throwContract(info.Env(), "the first argument is the handle of frame slots");
  *held = info[0].As<Napi::External<Held>>().Data();
  return (**held)->begin()[integerArg(info, 1, 0, static_cast<int64_t>((**held)->count()) - 1)];
}

// frameSubmit(handle, slot, wake): the slot is filled, and the caller's again when its state is kEncoded or kFailed. `wake`:
// as PagePool::submit.
static void frameSubmit(const Napi::CallbackInfo& info) {
  Held* held;
  FrameSlot& slot = slotArg(info, &held);
  if (slot.state.load() == FrameSlot::kSubmitted) throwContract(info.Env(), "this slot is submitted already");
  if (slot.chunks < 1 || slot.chunks > kFrameChunks || slot.maxCompressed > kRawBytes || slot.digest > FrameSlot::kBlake3)
    throwContract(info.Env(), "this slot is not filled");
  auto job = std::make_shared<EncodeJob>(*held, slot);
  slot.state.store(FrameSlot::kSubmitted);
  PagePool::get().submit(std::move(job), info[2].ToBoolean());
}

// frameWait(handle, slot): blocks until the slot is the caller's again. Throws a contract error if it cannot be encoded.
static void frameWait(const Napi::CallbackInfo& info) {
  Held* held;
  FrameSlot& slot = slotArg(info, &held);
  PagePool::get().helpUntil([&slot] { return slot.state.load() != FrameSlot::kSubmitted; });
  if (slot.state.load() == FrameSlot::kFailed) throwContract(info.Env(), "OpenSSL computes no SHA-256");
}

void initFrameEncoder(Napi::Env env, Napi::Object exports) {
  auto layout = Napi::Object::New(env);
  auto set = [&](const char* name, size_t value) { layout.Set(name, Napi::Number::New(env, static_cast<double>(value))); };
  set("slotBytes", sizeof(FrameSlot));
  set("numbers", offsetof(FrameSlot, numbers));
  set("digests", offsetof(FrameSlot, digests));
  set("frame", offsetof(FrameSlot, frame));
  set("raw", offsetof(FrameSlot, raw));
  exports.Set("frameSlotLayout", layout);
  exports.Set("frameSlots", Napi::Function::New(env, frameSlots));
  exports.Set("frameSubmit", Napi::Function::New(env, frameSubmit));
  exports.Set("frameWait", Napi::Function::New(env, frameWait));
}

}  // namespace livesnap
