// Kernel file locks (flock(2)). The kernel releases them when the process dies.
// Runs on the calling JS thread and never blocks.
#include "locks.h"

#include <errno.h>
#include <sys/file.h>

#include "errors.h"

namespace livesnap {

// tryLock(fd, exclusive) → boolean: false when another open file description has a conflicting lock.
static Napi::Value tryLock(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  bool exclusive = info[1].ToBoolean();
  int rc;
  do rc = flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
  while (rc < 0 && errno == EINTR);
  if (rc < 0 && errno != EWOULDBLOCK) throwErrno(info.Env(), "flock", errno);
  return Napi::Boolean::New(info.Env(), rc == 0);
}

void initLocks(Napi::Env env, Napi::Object exports) {
  exports.Set("tryLock", Napi::Function::New(env, tryLock));
}

}  // namespace livesnap
