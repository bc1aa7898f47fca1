// Kernel file locks: flock(2), and open file description locks (fcntl(2)). The kernel releases them when the process
// dies.
// Runs on the calling JS thread and never blocks.
#include "locks.h"

#include <errno.h>
#include <fcntl.h>
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

static struct flock wholeFile(short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

// lockWholeFile(fd, exclusive) → boolean: an open file description lock on all bytes of a file; false when another one
// conflicts with it. qemu and qemu-img take and honour such locks, not those of flock.
static Napi::Value lockWholeFile(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  struct flock lock = wholeFile(info[1].ToBoolean() ? F_WRLCK : F_RDLCK);
  int rc;
  do rc = fcntl(fd, F_OFD_SETLK, &lock);
  while (rc < 0 && errno == EINTR);
  if (rc < 0 && errno != EAGAIN && errno != EACCES) throwErrno(info.Env(), "fcntl", errno);
  return Napi::Boolean::New(info.Env(), rc == 0);
}

// lockAt(fd, offset) → the first byte of a lock of another open file description that covers this byte; null: none does.
static Napi::Value lockAt(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  struct flock lock = wholeFile(F_WRLCK);
  lock.l_start = integerArg(info, 1, 0, INT64_MAX >> 11);
  lock.l_len = 1;
  if (fcntl(fd, F_OFD_GETLK, &lock) < 0) throwErrno(info.Env(), "fcntl", errno);
  if (lock.l_type == F_UNLCK) return info.Env().Null();
  return Napi::Number::New(info.Env(), static_cast<double>(lock.l_start));
}

void initLocks(Napi::Env env, Napi::Object exports) {
  exports.Set("tryLock", Napi::Function::New(env, tryLock));
  exports.Set("lockWholeFile", Napi::Function::New(env, lockWholeFile));
  exports.Set("lockAt", Napi::Function::New(env, lockAt));
}

}  // namespace livesnap
