#pragma once
#include <napi.h>

namespace livesnap {
void initHashAhead(Napi::Env env, Napi::Object exports);
}
