// Idle time: threads that use only the processor and disk time that no other thread wants.
#pragma once
#include <napi.h>

namespace livesnap {

// Whether the calling thread has called useIdleTime. Threads that it starts have its priority, but not this mark.
bool usesIdleTime();

void initIdleTime(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
