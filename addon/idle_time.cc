// Thread: a page Worker that was started for idle time.
#include "idle_time.h"

#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "errors.h"

namespace livesnap {

// ioprio_set(2). The C library has no header for it, and older kernels' headers have none either.
constexpr int IOPRIO_WHO_PROCESS = 1, IOPRIO_CLASS_IDLE = 3, IOPRIO_CLASS_SHIFT = 13;

static thread_local bool isIdle = false;

bool usesIdleTime() { return isIdle; }

// useIdleTime(): the calling thread gets processor time by SCHED_IDLE (sched(7)) and disk time by IOPRIO_CLASS_IDLE
// (ioprio_set(2)), and so do the threads that it starts. It cannot be undone without privileges.
static void useIdleTime(const Napi::CallbackInfo& info) {
  sched_param none{};
  if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) throwErrno(info.Env(), "sched_setscheduler", errno);
  if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT) != 0)
    throwErrno(info.Env(), "ioprio_set", errno);
  isIdle = true;
}

void initIdleTime(Napi::Env env, Napi::Object exports) {
  exports.Set("useIdleTime", Napi::Function::New(env, useIdleTime));
}

}  // namespace livesnap
