// Guest RAM: one memfd per region, mapped once per process, with a reference count.
//
// Invariants:
// - The mapping is made and unmapped here, exactly once.
// - JavaScript has no view of it. It copies pages in and out.
// - A machine with the memory in a slot holds a reference, so the handle may be closed first.
#pragma once
#include <napi.h>

#include <atomic>
#include <memory>

namespace livesnap {

struct Memory {
  int fd = -1;
  uint8_t* base = nullptr;
  size_t size = 0;
  // Whether pages may be given back (memoryDiscard). False while pages are missing that somebody else still fills: they
  // would be filled again.
  std::atomic<bool> discardable{true};
  // Pages were given back: copies look for holes, because reading one allocates it.
  std::atomic<bool> hasDiscarded{false};
  ~Memory();
};

// The memory of a handle; null for a closed one. Any thread.
std::shared_ptr<Memory> findMemory(uint32_t handle);

// The memory of a handle; throws MACHINE_GONE for a closed one. Any JS thread.
std::shared_ptr<Memory> memoryArg(const Napi::CallbackInfo& info, size_t index);

// A part of a memory, which it holds.
struct Range {
  std::shared_ptr<Memory> memory;
  uint8_t* base;
  size_t length;
};

// Checks ranges that JavaScript gives as numbers. One after another in the same memory takes one look-up.
class RangeReader {
 public:
  explicit RangeReader(Napi::Env env) : env_(env) {}
  // Numbers: the handle of a memory, an offset and a length. They may lie in shared memory, so each is read once.
  Range read(const volatile double* numbers);

 private:
  Napi::Env env_;
  uint32_t handle_ = 0;
  std::shared_ptr<Memory> memory_;
};

void initMemory(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
