// Open files that pass from one process to another over a Unix socket: unix(7), SCM_RIGHTS.
// Runs on the calling JS thread and never blocks.
#include "passed_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "errors.h"

namespace livesnap {

// The files of one message, at most.
static constexpr uint32_t kMaxFiles = 32;

// A message with one byte of data, because files cannot be sent alone, and room for the descriptors.
struct Message {
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFiles * sizeof(int))] = {};
  msghdr head = {};
  explicit Message(size_t controlBytes) {
    head.msg_iov = &data;
    head.msg_iovlen = 1;
    head.msg_control = control;
    head.msg_controllen = controlBytes;
  }
};

// sendFiles(socket, fds)
static void sendFiles(const Napi::CallbackInfo& info) {
  int socket = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  auto list = info[1].As<Napi::Array>();
  if (!info[1].IsArray() || list.Length() < 1 || list.Length() > kMaxFiles)
    throwContract(info.Env(), "sendFiles takes 1 to 32 descriptors");
  std::vector<int> fds;
  for (uint32_t i = 0; i < list.Length(); i++) fds.push_back(list.Get(i).ToNumber().Int32Value());
  size_t bytes = fds.size() * sizeof(int);
  Message message(CMSG_SPACE(bytes));
  cmsghdr* header = CMSG_FIRSTHDR(&message.head);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(header), fds.data(), bytes);
  ssize_t sent;
  do sent = sendmsg(socket, &message.head, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) throwErrno(info.Env(), "sendmsg", errno);
}

// receiveFiles(socket, count) → fds. They are closed on exec.
static Napi::Value receiveFiles(const Napi::CallbackInfo& info) {
  int socket = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  auto count = static_cast<size_t>(integerArg(info, 1, 1, kMaxFiles));
  Message message(CMSG_SPACE(kMaxFiles * sizeof(int)));
  ssize_t received;
  do received = recvmsg(socket, &message.head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  if (received < 0) throwErrno(info.Env(), "recvmsg", errno);
  std::vector<int> fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message.head); header != nullptr; header = CMSG_NXTHDR(&message.head, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    size_t before = fds.size();
    fds.resize(before + here);
    memcpy(fds.data() + before, CMSG_DATA(header), here * sizeof(int));
  }
  if (fds.size() != count) {
    for (int fd : fds) close(fd);
    throwErrno(info.Env(), "recvmsg", EBADMSG);
  }
  auto result = Napi::Array::New(info.Env(), count);
  for (uint32_t i = 0; i < count; i++) result.Set(i, Napi::Number::New(info.Env(), fds[i]));
  return result;
}

// replaceFile(fd, target): `target` becomes a descriptor of the same open file as `fd`. It stays open on exec.
static void replaceFile(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  int target = static_cast<int>(integerArg(info, 1, 0, INT32_MAX));
  int rc;
  do rc = dup2(fd, target);
  while (rc < 0 && (errno == EINTR || errno == EBUSY));
  if (rc < 0) throwErrno(info.Env(), "dup2", errno);
}

void initPassedFiles(Napi::Env env, Napi::Object exports) {
  exports.Set("sendFiles", Napi::Function::New(env, sendFiles));
  exports.Set("receiveFiles", Napi::Function::New(env, receiveFiles));
  exports.Set("replaceFile", Napi::Function::New(env, replaceFile));
}

}  // namespace livesnap
