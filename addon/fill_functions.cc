// The functions of a fill for TypeScript (memory_fill.h). Any JS thread; none of them blocks.
#include <errno.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <thread>

#include "errors.h"
#include "machine.h"
#include "memory_fill.h"
#include "registry.h"

namespace livesnap {

static constexpr size_t kMaxThreads = 4;

static Registry<MemoryFill>& fills() {
  static auto* registry = new Registry<MemoryFill>();
  return *registry;
}

static std::shared_ptr<MemoryFill> fillArg(const Napi::CallbackInfo& info) {
  auto fill = fills().find(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (!fill) throwContract(info.Env(), "the fill is closed");
  return fill;
}

static size_t threadCount() { return std::clamp<size_t>(std::thread::hardware_concurrency(), 1, kMaxThreads); }

// fillPossible() → 0 if a lazy fill can serve a guest, else the errno value of userfaultfd(2).
static Napi::Value fillPossible(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), UserFault::open(UserFault::Faults::kAll) != nullptr ? 0 : errno);
}

// Calls a function of JavaScript once, from any thread, unless its environment has ended: then Node has freed the
// thread-safe function, however many threads hold it (napi_call_threadsafe_function would use freed memory).
class OneCall : public std::enable_shared_from_this<OneCall> {
 public:
  OneCall(Napi::Env env, Napi::Function function, bool keepsLoop)
      : function_(Napi::ThreadSafeFunction::New(env, function, "fill", 0, 1)) {
    if (!keepsLoop) function_.Unref(env);
  }

  // Called once. Node runs its hooks in the reverse order, so this one comes before that of the function.
  void watch(napi_env env) {
    napi_add_env_cleanup_hook(env, environmentEnds, new std::shared_ptr<OneCall>(shared_from_this()));
  }

  void make() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (over_) return;
    over_ = true;
    function_.NonBlockingCall();
    function_.Release();
  }

  // It will not be called.
  void drop() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!over_) function_.Release();
    over_ = true;
  }

 private:
  static void environmentEnds(void* data) {
    std::unique_ptr<std::shared_ptr<OneCall>> call(static_cast<std::shared_ptr<OneCall>*>(data));
    std::lock_guard<std::mutex> lock((*call)->mutex_);
    (*call)->over_ = true;
  }

  std::mutex mutex_;
  bool over_ = false;
  Napi::ThreadSafeFunction function_;
};

// fillStart(pairs, lazy, wanted, ended) → handle. `pairs`: a Uint32Array of memory and reader, in turn. `wanted`: a
// Uint32Array of pair and page, in turn, that a lazy fill begins with; what is not in a pair's region is left out.
// `ended()` is called once, on this thread. A lazy fill does not keep the event loop alive.
static Napi::Value fillStart(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const char* what = "a fill takes pairs and wanted pages in Uint32Arrays, and a function";
  auto [data, count] = elementsArg(info, 0, napi_uint32_array, what);
  if (count == 0 || count % 2 != 0 || !info[3].IsFunction()) throwContract(env, what);
  auto [wantedData, wantedCount] = elementsArg(info, 2, napi_uint32_array, what);
  auto* pages = static_cast<const uint32_t*>(wantedData);
  auto* handles = static_cast<const uint32_t*>(data);
  std::vector<FillTarget> targets;
  for (size_t i = 0; i < count; i += 2) {
    FillTarget target = {findMemory(handles[i]), findRegionReader(handles[i + 1])};
    if (target.memory == nullptr || target.reader == nullptr) throwGone(env);
    if (target.reader->pageCount() > target.memory->size / kPageBytes)
      throwContract(env, "a region is larger than the memory it fills");
    targets.push_back(std::move(target));
  }
  std::vector<FillWindow> wanted;
  for (size_t i = 0; i + 1 < wantedCount; i += 2)
    if (pages[i] < targets.size() && pages[i + 1] < targets[pages[i]].reader->pageCount())
      wanted.push_back({pages[i], pages[i + 1]});
  bool lazy = info[1].ToBoolean();
  auto faults = UserFault::open(lazy ? UserFault::Faults::kAll : UserFault::Faults::kUserMode);
  if (lazy && faults == nullptr) throwErrno(env, "userfaultfd", errno);

  auto ended = std::make_shared<OneCall>(env, info[3].As<Napi::Function>(), !lazy);
  ended->watch(env);
  auto tell = [ended] { ended->make(); };
  auto fill = std::make_shared<MemoryFill>(targets, std::move(faults), lazy, std::move(wanted));
  int err = fill->start(threadCount(), tell);
  if (err == 0) return Napi::Number::New(env, fills().add(std::move(fill)));
  if (!lazy) {
    // The kernel has no userfaultfd for such memory.
    fill = std::make_shared<MemoryFill>(std::move(targets), nullptr, false);
    err = fill->start(threadCount(), tell);
    if (err == 0) return Napi::Number::New(env, fills().add(std::move(fill)));
  }
  ended->drop();
  throwErrno(env, "fill", err);
}

// fillState(fill) → [complete, doneBytes, totalBytes]
static Napi::Value fillState(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto fill = fillArg(info);
  auto state = Napi::Array::New(env, 3);
  state.Set(0u, Napi::Boolean::New(env, fill->isComplete()));
  state.Set(1u, Napi::Number::New(env, static_cast<double>(fill->doneBytes())));
  state.Set(2u, Napi::Number::New(env, static_cast<double>(fill->totalBytes())));
  return state;
}

// fillFaults(fill) → a Uint32Array of pair and page, in turn: what somebody has waited for so far.
static Napi::Value fillFaults(const Napi::CallbackInfo& info) {
  auto faults = fillArg(info)->faults();
  auto words = Napi::Uint32Array::New(info.Env(), faults.size() * 2);
  for (size_t i = 0; i < faults.size(); i++) {
    words[2 * i] = faults[i].target;
    words[2 * i + 1] = faults[i].page;
  }
  return words;
}

// fillError(fill) → [errno, file, offset, why, target, page's offset] | null. Offsets: −1 for none. An empty file: `why`
// is the system call that could not write the memory.
static Napi::Value fillError(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto failure = fillArg(info)->failure();
  if (!failure) return env.Null();
  auto parts = Napi::Array::New(env, 6);
  parts.Set(0u, Napi::Number::New(env, failure->read.err));
  parts.Set(1u, Napi::String::New(env, failure->read.file));
  parts.Set(2u, Napi::Number::New(env, static_cast<double>(failure->read.offset)));
  parts.Set(3u, Napi::String::New(env, failure->read.why));
  parts.Set(4u, Napi::Number::New(env, static_cast<double>(failure->target)));
  parts.Set(5u, Napi::Number::New(env, static_cast<double>(failure->offset)));
  return parts;
}

// fillAttach(machine, fill): the machine is halted when the fill fails, and ends the fill when it ends.
static void fillAttach(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  auto fill = fills().find(static_cast<uint32_t>(integerArg(info, 1, 0, UINT32_MAX)));
  if (!fill) throwContract(info.Env(), "the fill is closed");
  {
    std::lock_guard<std::mutex> lock(machine->haltMutex);
    machine->halting = [weak = std::weak_ptr<MemoryFill>(fill)] {
      if (auto fill = weak.lock()) fill->abandon();
    };
  }
  fill->attach(machine);
}

// fillHurry(fill)
static void fillHurry(const Napi::CallbackInfo& info) { fillArg(info)->hurry(); }

// fillClose(fill): ends it, filled or not, and drops the handle.
static void fillClose(const Napi::CallbackInfo& info) {
  auto fill = fills().remove(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (fill) fill->abandon();
}

void initMemoryFill(Napi::Env env, Napi::Object exports) {
  exports.Set("fillPossible", Napi::Function::New(env, fillPossible));
  exports.Set("fillStart", Napi::Function::New(env, fillStart));
  exports.Set("fillState", Napi::Function::New(env, fillState));
  exports.Set("fillFaults", Napi::Function::New(env, fillFaults));
  exports.Set("fillError", Napi::Function::New(env, fillError));
  exports.Set("fillAttach", Napi::Function::New(env, fillAttach));
  exports.Set("fillHurry", Napi::Function::New(env, fillHurry));
  exports.Set("fillClose", Napi::Function::New(env, fillClose));
}

}  // namespace livesnap
