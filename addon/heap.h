// The heap of the C library.
#pragma once
#include <napi.h>

namespace livesnap {
void initHeap(Napi::Env env, Napi::Object exports);
}  // namespace livesnap
