// Guest RAM: one memfd a region, mapped once a process, kept by count.
//
// Invariants: the mapping is made and unmapped here, exactly once; JavaScript never owns a view of it, it copies
// pages in and out; a machine that has the memory in a slot holds a reference, so closing the handle first is safe.
#pragma once
#include <napi.h>

#include <memory>

namespace livesnap {

struct Memory {
  int fd = -1;
  uint8_t* base = nullptr;
  size_t size = 0;
  ~Memory();
};

// The memory behind a handle, or a thrown contract error. Any JS thread.
std::shared_ptr<Memory> memoryArg(const Napi::CallbackInfo& info, size_t index);

void initMemory(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
