// Memory that this process keeps and does not use.
#pragma once
#include <napi.h>

namespace livesnap {
void initHeap(Napi::Env env, Napi::Object exports);
}  // namespace livesnap
