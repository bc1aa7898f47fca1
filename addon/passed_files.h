#pragma once
#include <napi.h>

namespace livesnap {
void initPassedFiles(Napi::Env env, Napi::Object exports);
}
