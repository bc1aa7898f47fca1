// Files mapped for reading, where a page that cannot be read becomes zeros.
#pragma once

#include <napi.h>

namespace livesnap {

void initMappedFile(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
