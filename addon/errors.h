// Errors of native code. They are of the project's own classes, which src/native/addon.ts sets once per environment.
// Call these functions only on the thread of the given environment, never on a vCPU thread.
#pragma once
#include <napi.h>

namespace livesnap {

// Data of one Node environment (the main thread or a Worker). No JS value is referenced statically.
struct EnvironmentData {
  Napi::FunctionReference systemError;  // (syscall, errno, errnoName, message) => Error
  Napi::FunctionReference goneError;    // () => Error
};

// Throws SystemError for the errno value `err` of `syscall`.
[[noreturn]] void throwErrno(Napi::Env env, const char* syscall, int err);

// Throws MACHINE_GONE: another thread has closed the handle of a machine or a memory, because the machine has ended.
[[noreturn]] void throwGone(Napi::Env env);

// Throws a TypeError: src/native has called this addon in a wrong way. Never for a user's mistake.
[[noreturn]] void throwContract(Napi::Env env, const char* what);

// Arguments, checked for type and range. Throw with throwContract.
int64_t integerArg(const Napi::CallbackInfo& info, size_t index, int64_t min, int64_t max);
struct Bytes {
  uint8_t* data;
  size_t length;
};
// A Uint8Array, over an ArrayBuffer or SharedArrayBuffer.
Bytes bytesArg(const Napi::CallbackInfo& info, size_t index);
struct Elements {
  void* data;
  size_t count;
};
// A typed array of this type; else throws `what`.
Elements elementsArg(const Napi::CallbackInfo& info, size_t index, napi_typedarray_type type, const char* what);

}  // namespace livesnap
