// Thread: any.
#include "heap.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "errors.h"

namespace livesnap {

// trimHeap(): gives free memory of all arenas back to the kernel (malloc_trim(3)). glibc keeps most of it otherwise. Other C
// libraries have no such call.
static void trimHeap(const Napi::CallbackInfo&) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// discardBytes(bytes): gives the whole pages of a buffer back to the kernel (MADV_DONTNEED). They are zero when they are used
// next. The buffer is memory that the process allocated, not a mapped file.
static void discardBytes(const Napi::CallbackInfo& info) {
  constexpr uintptr_t kPage = 4096;
  Bytes bytes = bytesArg(info, 0);
  auto begin = reinterpret_cast<uintptr_t>(bytes.data), end = begin + bytes.length;
  uintptr_t first = (begin + kPage - 1) & ~(kPage - 1), last = end & ~(kPage - 1);
  // Where the kernel refuses it, the memory stays as it is.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void initHeap(Napi::Env env, Napi::Object exports) {
  exports.Set("trimHeap", Napi::Function::New(env, trimHeap));
  exports.Set("discardBytes", Napi::Function::New(env, discardBytes));
}

}  // namespace livesnap
