#pragma once
#include <napi.h>

namespace livesnap {
void initLocks(Napi::Env env, Napi::Object exports);
}
