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

static struct flock lockOf(const Napi::CallbackInfo& info, short type, size_t start, int64_t length) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = integerArg(info, start, 0, INT64_MAX >> 11);
  lock.l_len = length;
  return lock;
}

// lockBytes(fd, exclusive, start, length) → boolean: an open file description lock; false when another one conflicts with
// it. `length` 0: to the end of the file, wherever that is. qemu and qemu-img take and honour such locks, not those of flock.
static Napi::Value lockBytes(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  struct flock lock =
      lockOf(info, info[1].ToBoolean() ? F_WRLCK : F_RDLCK, 2, integerArg(info, 3, 0, INT64_MAX >> 11));
  int rc;
  do rc = fcntl(fd, F_OFD_SETLK, &lock);
  while (rc < 0 && errno == EINTR);
  if (rc < 0 && errno != EAGAIN && errno != EACCES) throwErrno(info.Env(), "fcntl", errno);
  return Napi::Boolean::New(info.Env(), rc == 0);
}

// lockAt(fd, offset) → the first byte of a lock of another open file description that covers this byte; null: none does.
static Napi::Value lockAt(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  struct flock lock = lockOf(info, F_WRLCK, 1, 1);
  if (fcntl(fd, F_OFD_GETLK, &lock) < 0) throwErrno(info.Env(), "fcntl", errno);
  if (lock.l_type == F_UNLCK) return info.Env().Null();
  return Napi::Number::New(info.Env(), static_cast<double>(lock.l_start));
}

void initLocks(Napi::Env env, Napi::Object exports) {
  exports.Set("tryLock", Napi::Function::New(env, tryLock));
  exports.Set("lockBytes", Napi::Function::New(env, lockBytes));
  exports.Set("lockAt", Napi::Function::New(env, lockAt));
}

}  // namespace livesnap
