// Linux, Documentation/admin-guide/mm/userfaultfd.rst; ioctl_userfaultfd(2).
#include "user_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace livesnap {

static constexpr size_t kPage = 4096;
static constexpr int kUserModeOnly = 1;                      // UFFD_USER_MODE_ONLY, Linux 5.11
static constexpr unsigned long kNewDescriptor = _IO(0xAA, 0);  // USERFAULTFD_IOC_NEW of /dev/userfaultfd, Linux 6.1

static int openDescriptor(UserFault::Faults faults) {
  constexpr int flags = O_CLOEXEC | O_NONBLOCK;
  if (faults == UserFault::Faults::kUserMode) return static_cast<int>(syscall(SYS_userfaultfd, flags | kUserModeOnly));
  // The device is for those who may open it. The system call needs a privilege, or vm.unprivileged_userfaultfd = 1.
  int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device >= 0) {
    int fd = ioctl(device, kNewDescriptor, flags);
    close(device);
    if (fd >= 0) return fd;
  }
  return static_cast<int>(syscall(SYS_userfaultfd, flags));
}

std::unique_ptr<UserFault> UserFault::open(Faults faults) {
  int fd = openDescriptor(faults);
  if (fd < 0) return nullptr;
  std::unique_ptr<UserFault> opened(new UserFault(fd));
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM;
  return ioctl(fd, UFFDIO_API, &api) == 0 ? std::move(opened) : nullptr;
}

UserFault::~UserFault() {
  int err = errno;
  close(fd_);
  errno = err;
}

int UserFault::add(uint8_t* base, size_t length) {
  uffdio_register request = {};
  request.range = {reinterpret_cast<uint64_t>(base), length};
  request.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (ioctl(fd_, UFFDIO_REGISTER, &request) < 0) return errno;
  constexpr uint64_t needed = uint64_t{1} << _UFFDIO_COPY | uint64_t{1} << _UFFDIO_ZEROPAGE;
  return (request.ioctls & needed) == needed ? 0 : ENOTSUP;
}

void UserFault::remove(uint8_t* base, size_t length) {
  uffdio_range range = {reinterpret_cast<uint64_t>(base), length};
  ioctl(fd_, UFFDIO_UNREGISTER, &range);
  // The kernel wakes who waits before it ends the registration: a fault between the two would wait for ever.
  ioctl(fd_, UFFDIO_WAKE, &range);
}

// Calls `place(to, length)`, which returns the bytes done or −errno, until all is in place.
template <class Place>
int UserFault::placeAll(uint8_t* to, size_t length, Place place) {
  for (size_t done = 0; done < length;) {
    int64_t n = place(to + done, done, length - done);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (n == -EEXIST) {
      // Another thread was first. Its wake-up may have come before a fault that is queued now.
      uffdio_range range = {reinterpret_cast<uint64_t>(to + done), kPage};
      ioctl(fd_, UFFDIO_WAKE, &range);
      done += kPage;
    } else if (n != -EAGAIN) {  // the mapping is being changed
      return n == 0 ? EIO : static_cast<int>(-n);
    }
  }
  return 0;
}

int UserFault::copy(uint8_t* to, const uint8_t* from, size_t length) {
  return placeAll(to, length, [&](uint8_t* at, size_t done, size_t left) -> int64_t {
    uffdio_copy request = {};
    request.dst = reinterpret_cast<uint64_t>(at);
    request.src = reinterpret_cast<uint64_t>(from + done);
    request.len = left;
    if (ioctl(fd_, UFFDIO_COPY, &request) == 0) return static_cast<int64_t>(left);
    return request.copy != 0 ? request.copy : -errno;
  });
}

int UserFault::zero(uint8_t* to, size_t length) {
  return placeAll(to, length, [&](uint8_t* at, size_t, size_t left) -> int64_t {
    uffdio_zeropage request = {};
    request.range = {reinterpret_cast<uint64_t>(at), left};
    if (ioctl(fd_, UFFDIO_ZEROPAGE, &request) == 0) return static_cast<int64_t>(left);
    return request.zeropage != 0 ? request.zeropage : -errno;
  });
}

bool UserFault::next(uint8_t** page) {
  uffd_msg message;
  for (;;) {
    ssize_t n = read(fd_, &message, sizeof message);
    if (n < 0 && errno == EINTR) continue;
    if (n != sizeof message) return false;
    if (message.event != UFFD_EVENT_PAGEFAULT) continue;
    *page = reinterpret_cast<uint8_t*>(message.arg.pagefault.address & ~uint64_t{kPage - 1});
    return true;
  }
}

}  // namespace livesnap
