// Calls on files that Node does not have: several fsyncs at once, the data of a sparse file, extended attributes, and
// sizes of block devices. Runs on the calling JS thread. Only syncFiles waits for the disk; the others block while the
// file system reads its metadata.
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "errors.h"

namespace livesnap {

int findData(int fd, off_t from, off_t* begin, off_t* end) {
  *begin = lseek(fd, from, SEEK_DATA);
  if (*begin < 0) return errno;
  *end = lseek(fd, *begin, SEEK_HOLE);
  if (*end < 0) return errno;
  // Some devices return any position.
  return *begin < from || *end <= *begin ? EINVAL : 0;
}

// nextData(fd, offset) → [begin, end]: the first range of data at or after `offset`; null when only holes follow. Moves
// the descriptor's position.
static Napi::Value nextData(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  auto offset = static_cast<off_t>(integerArg(info, 1, 0, INT64_MAX >> 10));
  off_t begin, end;
  int err = findData(fd, offset, &begin, &end);
  if (err == ENXIO) return info.Env().Null();
  if (err != 0) throwErrno(info.Env(), "lseek", err);
  auto range = Napi::Array::New(info.Env(), 2);
  range.Set(0u, Napi::Number::New(info.Env(), static_cast<double>(begin)));
  range.Set(1u, Napi::Number::New(info.Env(), static_cast<double>(end)));
  return range;
}

// startWriteback(fd, offset, length): the kernel begins to write these bytes of the file to the disk. Nothing is promised;
// an fsync later waits for less (sync_file_range(2), SYNC_FILE_RANGE_WRITE). File systems without it ignore the call.
static void startWriteback(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  auto offset = static_cast<off_t>(integerArg(info, 1, 0, INT64_MAX >> 10));
  auto length = static_cast<off_t>(integerArg(info, 2, 1, INT64_MAX >> 10));
  sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE);
}

// The most files that syncFiles takes: each has a thread.
static constexpr size_t kMaxSynced = 8;

// syncFiles(fds): fsyncs the files at the same time, so that a journaling file system commits them together, and waits
// for all. Throws the error of the first that failed.
static void syncFiles(const Napi::CallbackInfo& info) {
  auto fds = info[0].As<Napi::Int32Array>();
  size_t count = fds.ElementLength();
  if (count == 0 || count > kMaxSynced)
    throw Napi::RangeError::New(info.Env(), "one to eight files are synced at once");
  std::vector<int> errors(count, 0);
  auto sync = [&errors, files = std::vector<int>(fds.Data(), fds.Data() + count)](size_t i) {
    if (fsync(files[i]) < 0) errors[i] = errno;
  };
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (size_t i = 1; i < count; i++) {
    try {
      threads.emplace_back(sync, i);
    } catch (const std::system_error&) {
      sync(i);  // no more threads: one after the other
    }
  }
  sync(0);
  for (auto& thread : threads) thread.join();
  for (int error : errors)
    if (error != 0) throwErrno(info.Env(), "fsync", error);
}

static constexpr char kAcl[] = "system.posix_acl_access";

// Attributes that do not depend on the content. Others (security.capability, security.ima) do, and a write drops them.
static bool belongsToFile(const std::string& name) {
  return name.compare(0, 5, "user.") == 0 || name == kAcl || name == "security.selinux" ||
         name == "security.SMACK64";
}

// copyAttributes(from, to): gives the file `to` the access list and extended attributes of the file `from`, as far as
// the caller may set them. If `from` has no access list, the one that `to` inherited from its directory is removed.
static void copyAttributes(const Napi::CallbackInfo& info) {
  int from = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  int to = static_cast<int>(integerArg(info, 1, 0, INT32_MAX));
  std::vector<char> names(XATTR_LIST_MAX);
  ssize_t length = flistxattr(from, names.data(), names.size());
  bool hasAcl = false;
  std::vector<char> value(XATTR_SIZE_MAX);
  for (ssize_t at = 0; at < length;) {
    std::string name(names.data() + at);
    at += static_cast<ssize_t>(name.size()) + 1;
    if (!belongsToFile(name)) continue;
    ssize_t size = fgetxattr(from, name.c_str(), value.data(), value.size());
    if (size < 0) continue;
    if (name == kAcl) hasAcl = true;
    fsetxattr(to, name.c_str(), value.data(), static_cast<size_t>(size), 0);
  }
  if (!hasAcl) fremovexattr(to, kAcl);
}

// blockDeviceBytes(fd) → the size of a block device (BLKGETSIZE64).
static Napi::Value blockDeviceBytes(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  uint64_t size = 0;
  if (ioctl(fd, BLKGETSIZE64, &size) < 0) throwErrno(info.Env(), "ioctl", errno);
  return Napi::Number::New(info.Env(), static_cast<double>(size));
}

void initFiles(Napi::Env env, Napi::Object exports) {
  exports.Set("syncFiles", Napi::Function::New(env, syncFiles));
  exports.Set("startWriteback", Napi::Function::New(env, startWriteback));
  exports.Set("nextData", Napi::Function::New(env, nextData));
  exports.Set("copyAttributes", Napi::Function::New(env, copyAttributes));
  exports.Set("blockDeviceBytes", Napi::Function::New(env, blockDeviceBytes));
}

}  // namespace livesnap
