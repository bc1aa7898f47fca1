#pragma once
#include <napi.h>

namespace livesnap {
// The fingerprint of a page: 0 for a zero page, else its XXH64, where 0 becomes 1. Any thread.
uint64_t hashPage(const uint8_t* page);

void initPages(Napi::Env env, Napi::Object exports);
}
