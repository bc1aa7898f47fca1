#pragma once
#include <napi.h>

namespace livesnap {
void initPages(Napi::Env env, Napi::Object exports);
}
