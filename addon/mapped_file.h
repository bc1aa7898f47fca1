// Files mapped for reading, and what happens when a page of one cannot be had.
#pragma once

#include <napi.h>

namespace livesnap {

void initMappedFile(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
