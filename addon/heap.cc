// Thread: any.
#include "heap.h"

#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace livesnap {

// trimHeap(): gives free memory of all arenas back to the kernel (malloc_trim(3)). glibc keeps most of it otherwise. Other C
// libraries have no such call.
static void trimHeap(const Napi::CallbackInfo&) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void initHeap(Napi::Env env, Napi::Object exports) {
  exports.Set("trimHeap", Napi::Function::New(env, trimHeap));
}

}  // namespace livesnap
