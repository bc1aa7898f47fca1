#pragma once
#include <napi.h>

namespace livesnap {
// The fingerprint of a page: 0 for a zero page, else its XXH64, where 0 becomes 1. Any thread.
uint64_t hashPage(const uint8_t* page);

// Writes an LZ4 block and returns its length; 0 when it would exceed `capacity`. `isHigh`: LZ4-HC makes it, in
// about 15 times the time; it is smaller. Equal bytes give equal blocks. Any thread.
size_t compressBlock(const uint8_t* source, size_t length, uint8_t* target, size_t capacity, bool isHigh);

void initPages(Napi::Env env, Napi::Object exports);
}
