#pragma once
#include <napi.h>

namespace livesnap {
void initFiles(Napi::Env env, Napi::Object exports);
}
