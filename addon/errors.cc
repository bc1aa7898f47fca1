#include "errors.h"

#include <string.h>

#include <vector>

namespace livesnap {

void throwErrno(Napi::Env env, const char* syscall, int err) {
  auto* data = env.GetInstanceData<EnvironmentData>();
  const char* name = strerrorname_np(err);
  const std::vector<napi_value> args = {Napi::String::New(env, syscall), Napi::Number::New(env, err),
                                        Napi::String::New(env, name ? name : "?"),
                                        Napi::String::New(env, strerror(err))};
  if (data == nullptr || data->systemError.IsEmpty()) throw Napi::Error::New(env, strerror(err));
  throw Napi::Error(env, data->systemError.Call(args));
}

void throwGone(Napi::Env env) {
  auto* data = env.GetInstanceData<EnvironmentData>();
  if (data == nullptr || data->goneError.IsEmpty()) throw Napi::Error::New(env, "the machine has ended");
  throw Napi::Error(env, data->goneError.Call(std::vector<napi_value>{}));
}

void throwContract(Napi::Env env, const char* what) { throw Napi::TypeError::New(env, what); }

int64_t integerArg(const Napi::CallbackInfo& info, size_t index, int64_t min, int64_t max) {
  if (!info[index].IsNumber()) throwContract(info.Env(), "an argument is not a number");
  double value = info[index].As<Napi::Number>().DoubleValue();
  if (!(value >= static_cast<double>(min) && value <= static_cast<double>(max)) ||
      value != static_cast<double>(static_cast<int64_t>(value)))
    throwContract(info.Env(), "an argument is not an integer in range");
  return static_cast<int64_t>(value);
}

Elements elementsArg(const Napi::CallbackInfo& info, size_t index, napi_typedarray_type type, const char* what) {
  bool isTypedArray = false;
  napi_is_typedarray(info.Env(), info[index], &isTypedArray);
  napi_typedarray_type found;
  Elements elements;
  if (!isTypedArray ||
      napi_get_typedarray_info(info.Env(), info[index], &found, &elements.count, &elements.data, nullptr, nullptr) !=
          napi_ok ||
      found != type)
    throwContract(info.Env(), what);
  return elements;
}

Bytes bytesArg(const Napi::CallbackInfo& info, size_t index) {
  auto [data, length] = elementsArg(info, index, napi_uint8_array, "an argument is not a Uint8Array");
  return {static_cast<uint8_t*>(data), length};
}

}  // namespace livesnap
