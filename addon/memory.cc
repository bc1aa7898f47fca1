// Guest RAM (memory.h). Every function runs on the calling JS thread and blocks only in page faults.
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "errors.h"
#include "files.h"
#include "registry.h"

namespace livesnap {

static constexpr size_t kPage = 4096;
static Registry<Memory>& memories() {
  static auto* registry = new Registry<Memory>();
  return *registry;
}

Memory::~Memory() {
  if (base != nullptr) munmap(base, size);
  if (fd >= 0) close(fd);
}

std::shared_ptr<Memory> findMemory(uint32_t handle) { return memories().find(handle); }

static uint64_t integerOf(Napi::Env env, double value, double max) {
  if (!(value >= 0 && value <= max) || value != static_cast<double>(static_cast<int64_t>(value)))
    throwContract(env, "a number of a range is not an integer in bounds");
  return static_cast<uint64_t>(value);
}

Range RangeReader::read(const volatile double* numbers) {
  constexpr double kMaxInteger = 9007199254740991;  // that a number of JavaScript holds exactly
  auto handle = static_cast<uint32_t>(integerOf(env_, numbers[0], UINT32_MAX));
  uint64_t offset = integerOf(env_, numbers[1], kMaxInteger);
  uint64_t length = integerOf(env_, numbers[2], kMaxInteger);
  if (memory_ == nullptr || handle != handle_) {
    memory_ = findMemory(handle);
    handle_ = handle;
    if (memory_ == nullptr) throwGone(env_);
  }
  if (offset > memory_->size || length > memory_->size - offset) throwContract(env_, "a range ends beyond its memory");
  return {memory_, memory_->base + offset, static_cast<size_t>(length)};
}

std::shared_ptr<Memory> memoryArg(const Napi::CallbackInfo& info, size_t index) {
  auto memory = findMemory(static_cast<uint32_t>(integerArg(info, index, 0, UINT32_MAX)));
  if (!memory) throwGone(info.Env());
  return memory;
}

// memoryCreate(sizeBytes) → handle. A sparse memfd of whole pages, sealed against resizing.
static Napi::Value memoryCreate(const Napi::CallbackInfo& info) {
  int64_t size = integerArg(info, 0, kPage, int64_t{1} << 46);
  if (size % kPage != 0) throwContract(info.Env(), "a memory is a whole number of pages");
  auto memory = std::make_shared<Memory>();
  memory->fd = memfd_create("livesnap-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory->fd < 0) throwErrno(info.Env(), "memfd_create", errno);
  if (ftruncate(memory->fd, size) < 0) throwErrno(info.Env(), "ftruncate", errno);
  fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory->fd, 0);
  if (base == MAP_FAILED) throwErrno(info.Env(), "mmap", errno);
  // A core dump of the VMM must not contain the guest's memory.
  madvise(base, size, MADV_DONTDUMP);
  memory->base = static_cast<uint8_t*>(base);
  memory->size = size;
  return Napi::Number::New(info.Env(), memories().add(std::move(memory)));
}

// memoryClose(handle)
static void memoryClose(const Napi::CallbackInfo& info) {
  memories().remove(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
}

static uint8_t* range(const Napi::CallbackInfo& info, const Memory& memory, size_t offsetIndex, size_t length) {
  auto offset = static_cast<size_t>(integerArg(info, offsetIndex, 0, static_cast<int64_t>(memory.size)));
  if (length > memory.size - offset) throwContract(info.Env(), "a range ends beyond its memory");
  return memory.base + offset;
}

// memoryRead(handle, offset, into). Reading a hole allocates it: see memoryDataRanges.
static void memoryRead(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto into = bytesArg(info, 2);
  memcpy(into.data, range(info, *memory, 1, into.length), into.length);
}

// memoryWrite(handle, offset, bytes)
static void memoryWrite(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto bytes = bytesArg(info, 2);
  memcpy(range(info, *memory, 1, bytes.length), bytes.data, bytes.length);
}

static uint16_t* word16(const Napi::CallbackInfo& info, const Memory& memory) {
  uint8_t* at = range(info, memory, 1, sizeof(uint16_t));
  if (reinterpret_cast<uintptr_t>(at) % sizeof(uint16_t) != 0) throwContract(info.Env(), "an offset is odd");
  return reinterpret_cast<uint16_t*>(at);
}

// memoryLoad16(handle, offset) → value. One read, before every later access of this thread.
static Napi::Value memoryLoad16(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  return Napi::Number::New(info.Env(), __atomic_load_n(word16(info, *memory), __ATOMIC_SEQ_CST));
}

// memoryStore16(handle, offset, value). One write: after every earlier access of this thread, and before every later one.
static void memoryStore16(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto value = static_cast<uint16_t>(integerArg(info, 2, 0, UINT16_MAX));
  __atomic_store_n(word16(info, *memory), value, __ATOMIC_SEQ_CST);
  // The store alone orders itself before later atomic loads; the fence orders it before plain ones as well.
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

// memoryFillRandom(handle, offset, length): at most 64 KiB of the host's random bytes.
static void memoryFillRandom(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto length = static_cast<size_t>(integerArg(info, 2, 0, 65536));
  uint8_t* to = range(info, *memory, 1, length);
  for (size_t done = 0; done < length;) {
    ssize_t n = getrandom(to + done, length - done, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throwErrno(info.Env(), "getrandom", errno);
    done += static_cast<size_t>(n);
  }
}

struct PageList {
  const uint32_t* pages;
  size_t count;
};

static PageList pagesArg(const Napi::CallbackInfo& info, size_t index, const Memory& memory, size_t bufferLength) {
  auto [data, count] = elementsArg(info, index, napi_uint32_array, "page numbers are not a Uint32Array");
  if (count > bufferLength / kPage) throwContract(info.Env(), "more pages than bytes");
  PageList list = {static_cast<const uint32_t*>(data), count};
  for (size_t i = 0; i < count; i++)
    if (list.pages[i] >= memory.size / kPage) throwContract(info.Env(), "a page lies beyond its memory");
  return list;
}

// memoryDiscard(handle, offset, length) → whether it did: gives whole pages back to the host. They read as zeros.
static Napi::Value memoryDiscard(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto length = static_cast<size_t>(integerArg(info, 2, 0, static_cast<int64_t>(memory->size)));
  uint8_t* at = range(info, *memory, 1, length);
  if ((at - memory->base) % kPage != 0 || length % kPage != 0) throwContract(info.Env(), "a range is not of whole pages");
  if (length == 0 || !memory->discardable) return Napi::Boolean::New(info.Env(), false);
  memory->hasDiscarded = true;
  if (madvise(at, length, MADV_REMOVE) < 0) throwErrno(info.Env(), "madvise", errno);
  return Napi::Boolean::New(info.Env(), true);
}

// Whether a page is a hole. A page that the guest writes first meanwhile is in its dirty log.
static bool isHole(const Memory& memory, size_t page) {
  auto at = static_cast<off_t>(page * kPage);
  off_t data = lseek(memory.fd, at, SEEK_DATA);
  return data < 0 ? errno == ENXIO : data > at;
}

// memoryCopyPages(handle, pages, into): copies the page pages[i] to into[i * 4096]. The guest may write a page meanwhile,
// so each is copied once, and callers use the copy.
static void memoryCopyPages(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto into = bytesArg(info, 2);
  auto list = pagesArg(info, 1, *memory, into.length);
  bool hasHoles = memory->hasDiscarded;
  for (size_t i = 0; i < list.count; i++) {
    if (hasHoles && isHole(*memory, list.pages[i])) memset(into.data + i * kPage, 0, kPage);
    else memcpy(into.data + i * kPage, memory->base + list.pages[i] * kPage, kPage);
  }
}

// memoryWritePages(handle, pages, bytes): writes runs of adjacent pages with pwrite(2). That is twice as fast as writing
// through the mapping, where each new page is a page fault that zeroes the page first.
static void memoryWritePages(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto bytes = bytesArg(info, 2);
  auto list = pagesArg(info, 1, *memory, bytes.length);
  for (size_t i = 0; i < list.count;) {
    size_t run = 1;
    while (i + run < list.count && list.pages[i + run] == list.pages[i] + run) run++;
    const uint8_t* from = bytes.data + i * kPage;
    auto offset = static_cast<off_t>(list.pages[i]) * static_cast<off_t>(kPage);
    for (size_t done = 0; done < run * kPage;) {
      ssize_t n = pwrite(memory->fd, from + done, run * kPage - done, offset + static_cast<off_t>(done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throwErrno(info.Env(), "write of guest memory", n < 0 ? errno : ENOSPC);
      done += static_cast<size_t>(n);
    }
    i += run;
  }
}

// memoryDataRanges(handle) → Array of numbers offset, length, offset, length, …: the ranges of data (SEEK_DATA).
static Napi::Value memoryDataRanges(const Napi::CallbackInfo& info) {
  auto memory = memoryArg(info, 0);
  auto ranges = Napi::Array::New(info.Env());
  uint32_t n = 0;
  off_t at = 0;
  while (static_cast<size_t>(at) < memory->size) {
    off_t data, hole;
    int err = findData(memory->fd, at, &data, &hole);
    if (err == ENXIO) break;
    if (err != 0) throwErrno(info.Env(), "lseek", err);
    ranges.Set(n++, Napi::Number::New(info.Env(), data));
    ranges.Set(n++, Napi::Number::New(info.Env(), hole - data));
    at = hole;
  }
  return ranges;
}

void initMemory(Napi::Env env, Napi::Object exports) {
  exports.Set("memoryCreate", Napi::Function::New(env, memoryCreate));
  exports.Set("memoryClose", Napi::Function::New(env, memoryClose));
  exports.Set("memoryRead", Napi::Function::New(env, memoryRead));
  exports.Set("memoryWrite", Napi::Function::New(env, memoryWrite));
  exports.Set("memoryLoad16", Napi::Function::New(env, memoryLoad16));
  exports.Set("memoryStore16", Napi::Function::New(env, memoryStore16));
  exports.Set("memoryFillRandom", Napi::Function::New(env, memoryFillRandom));
  exports.Set("memoryDiscard", Napi::Function::New(env, memoryDiscard));
  exports.Set("memoryCopyPages", Napi::Function::New(env, memoryCopyPages));
  exports.Set("memoryWritePages", Napi::Function::New(env, memoryWritePages));
  exports.Set("memoryDataRanges", Napi::Function::New(env, memoryDataRanges));
}

}  // namespace livesnap
