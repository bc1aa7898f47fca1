#pragma once
#include <napi.h>

namespace livesnap {
void initPageProof(Napi::Env env, Napi::Object exports);
}  // namespace livesnap
