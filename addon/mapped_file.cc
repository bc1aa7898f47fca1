// Files mapped for reading. A page that the disk cannot read, or that was truncated, raises SIGBUS in the thread that
// touches it, which would end the process and its guest. Here such a page becomes zeros instead. So only hints may be
// mapped: zeros are a missing hint.
#include "mapped_file.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <mutex>

#include "errors.h"

namespace livesnap {

static constexpr size_t kPage = 4096;
static constexpr size_t kMaxMappings = 4096;

// The signal handler reads it in any thread. An entry is valid while its `start` is not 0.
struct Mapping {
  std::atomic<uintptr_t> start;
  std::atomic<size_t> length;
  struct Mapped* owner;  // under mappingsMutex
};
static Mapping mappings[kMaxMappings];
static std::mutex mappingsMutex;
static struct sigaction previousAction;

// Runs in the thread that touched the page. It uses only what a signal handler may use on Linux: loads of lock-free
// atomics, and system calls.
static void onBusError(int signal, siginfo_t* info, void* context) {
  int savedErrno = errno;
  auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (auto& mapping : mappings) {
    uintptr_t start = mapping.start.load(std::memory_order_acquire);
    if (start == 0 || address < start || address - start >= mapping.length.load(std::memory_order_relaxed)) continue;
    void* page = reinterpret_cast<void*>(address & ~(kPage - 1));
    void* zeros = mmap(page, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    errno = savedErrno;
    if (zeros != MAP_FAILED) return;
    break;
  }
  errno = savedErrno;
  // The signal is not for a mapping of ours, so what happens without this handler must happen. An earlier handler is
  // called, and this one stays. Without one the process dies: the signal is raised again, because a signal that another
  // process sent does not recur by itself. It is blocked until this handler returns.
  if ((previousAction.sa_flags & SA_SIGINFO) != 0) {
    previousAction.sa_sigaction(signal, info, context);
  } else if (previousAction.sa_handler != SIG_DFL && previousAction.sa_handler != SIG_IGN) {
    previousAction.sa_handler(signal);
  } else {
    struct sigaction die = {};
    die.sa_handler = SIG_DFL;
    sigaction(SIGBUS, &die, nullptr);
    raise(SIGBUS);
  }
}

static void installHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = onBusError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previousAction);
  });
}

static Mapping* claim(void* base, size_t length) {
  std::lock_guard<std::mutex> lock(mappingsMutex);
  for (auto& mapping : mappings) {
    if (mapping.start.load(std::memory_order_relaxed) != 0) continue;
    mapping.length.store(length, std::memory_order_relaxed);
    mapping.start.store(reinterpret_cast<uintptr_t>(base), std::memory_order_release);
    return &mapping;
  }
  return nullptr;
}

// The mapping behind an ArrayBuffer. It lives until the buffer is collected.
struct Mapped {
  void* base;
  size_t length;
  Mapping* entry;
};

static void release(Mapped* mapped) {
  if (mapped->entry == nullptr) return;
  {
    std::lock_guard<std::mutex> lock(mappingsMutex);
    mapped->entry->start.store(0, std::memory_order_release);
    mapped->entry->owner = nullptr;
    mapped->entry = nullptr;
  }
  munmap(mapped->base, mapped->length);
}

// mapFile(fd, length) → ArrayBuffer of the file's first `length` bytes. Writing to it ends the process. It is unmapped
// when the buffer is collected, on the thread that mapped it. Runs on the calling JS thread.
static Napi::Value mapFile(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  auto length = static_cast<size_t>(integerArg(info, 1, 1, int64_t{1} << 31));
  struct stat status;
  if (fstat(fd, &status) < 0) throwErrno(env, "fstat", errno);
  if (static_cast<size_t>(status.st_size) < length) throwErrno(env, "mmap", EINVAL);
  installHandler();
  void* base = mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) throwErrno(env, "mmap", errno);
  Mapping* mapping = claim(base, length);
  if (mapping == nullptr) {
    munmap(base, length);
    throwErrno(env, "mmap", ENOMEM);
  }
  auto* mapped = new Mapped{base, length, mapping};
  {
    std::lock_guard<std::mutex> lock(mappingsMutex);
    mapping->owner = mapped;
  }
  return Napi::ArrayBuffer::New(
      env, base, length,
      [](Napi::Env, void*, Mapped* hint) {
        release(hint);
        delete hint;
      },
      mapped);
}

// unmapFile(buffer): unmaps a buffer of mapFile now. Its views have length 0 afterwards. Runs on the JS thread that
// mapped it.
static void unmapFile(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) throwContract(info.Env(), "unmapFile takes what mapFile gave");
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  if (buffer.IsDetached()) return;
  auto start = reinterpret_cast<uintptr_t>(buffer.Data());
  Mapped* mapped = nullptr;
  {
    std::lock_guard<std::mutex> lock(mappingsMutex);
    for (auto& mapping : mappings)
      if (mapping.start.load(std::memory_order_relaxed) == start) mapped = mapping.owner;
  }
  if (mapped == nullptr) throwContract(info.Env(), "unmapFile takes what mapFile gave");
  release(mapped);
  buffer.Detach();  // may run the finalizer, which then has nothing to unmap
}

void initMappedFile(Napi::Env env, Napi::Object exports) {
  exports.Set("mapFile", Napi::Function::New(env, mapFile));
  exports.Set("unmapFile", Napi::Function::New(env, unmapFile));
}

}  // namespace livesnap
