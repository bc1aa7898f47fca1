// The addon's entry point, called once per environment: its data and its exports.
#include <napi.h>

#include "block_io.h"
#include "errors.h"
#include "files.h"
#include "frame_encoder.h"
#include "hash_ahead.h"
#include "heap.h"
#include "idle_time.h"
#include "locks.h"
#include "machine.h"
#include "mapped_file.h"
#include "memory.h"
#include "memory_fill.h"
#include "net_port.h"
#include "page_proof.h"
#include "pages.h"
#include "passed_files.h"
#include "region_reader.h"

namespace livesnap {

// setSystemError(make): `make(syscall, errno, errnoName, message)` returns the error of a failed system call.
static void setSystemError(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) throwContract(info.Env(), "setSystemError takes a function");
  info.Env().GetInstanceData<EnvironmentData>()->systemError = Napi::Persistent(info[0].As<Napi::Function>());
}

// setGoneError(make): `make()` returns the error for the use of a closed machine or memory.
static void setGoneError(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) throwContract(info.Env(), "setGoneError takes a function");
  info.Env().GetInstanceData<EnvironmentData>()->goneError = Napi::Persistent(info[0].As<Napi::Function>());
}

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new EnvironmentData());
  exports.Set("setSystemError", Napi::Function::New(env, setSystemError));
  exports.Set("setGoneError", Napi::Function::New(env, setGoneError));
  initBlockIo(env, exports);
  initFiles(env, exports);
  initFrameEncoder(env, exports);
  initHeap(env, exports);
  initIdleTime(env, exports);
  initLocks(env, exports);
  initEvents(env, exports);
  initExits(env, exports);
  initMachine(env, exports);
  initMappedFile(env, exports);
  initMemory(env, exports);
  initMemoryFill(env, exports);
  initNetPort(env, exports);
  initHashAhead(env, exports);
  initPageProof(env, exports);
  initPages(env, exports);
  initPassedFiles(env, exports);
  initRegionReader(env, exports);
  initTap(env, exports);
  return exports;
}

}  // namespace livesnap

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return livesnap::init(env, exports); }
NODE_API_MODULE(livesnap, Init)
