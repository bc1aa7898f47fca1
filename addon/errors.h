// How native code fails: as the project's own error class, injected once per environment by src/native/addon.ts.
// Throws only on the thread of the environment it is given; vCPU threads never call it.
#pragma once
#include <napi.h>

namespace livesnap {

// Data of one Node environment (the main thread's or a Worker's). There is no static reference to any JS value.
struct EnvironmentData {
  Napi::FunctionReference systemError;  // (syscall, errno, errnoName, message) => Error
  Napi::FunctionReference goneError;    // () => Error
};

// Throws SystemError for `err` (an errno value) met in `syscall`. Never returns.
[[noreturn]] void throwErrno(Napi::Env env, const char* syscall, int err);

// Throws MACHINE_GONE: the handle of a machine or of its memory is closed, because the machine has ended on another
// thread. Never returns.
[[noreturn]] void throwGone(Napi::Env env);

// Throws a RangeError/TypeError: a broken contract between TypeScript and this addon, never a user's mistake.
[[noreturn]] void throwContract(Napi::Env env, const char* what);

// Argument readers: every one checks type and range and throws through throwContract.
int64_t integerArg(const Napi::CallbackInfo& info, size_t index, int64_t min, int64_t max);
struct Bytes {
  uint8_t* data;
  size_t length;
};
// A Uint8Array (over an ArrayBuffer or SharedArrayBuffer); never null data for a non-empty one.
Bytes bytesArg(const Napi::CallbackInfo& info, size_t index);

}  // namespace livesnap
