// Notifications from the guest, watched descriptors of the host, and interrupts to the guest, without exits.
//
// Invariants:
// - Notifiers and interrupts belong to the machine and are closed with it; a watched descriptor belongs to its caller.
// - A notifier is emptied before its event is returned, so a write after that is another event.
// - The list of descriptors and the ready queue are used on the device thread only.
#include <errno.h>
#include <linux/kvm.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "errors.h"
#include "machine.h"

namespace livesnap {

static void watch(const Napi::CallbackInfo& info, Machine& machine, int fd, uint32_t events, uint32_t token,
                  bool isNotifier) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = fd;
  auto it = machine.watched.find(fd);
  bool wasPolled = it != machine.watched.end() && it->second.isPolled;
  int operation = events == 0 ? EPOLL_CTL_DEL : wasPolled ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if ((events != 0 || wasPolled) && epoll_ctl(machine.readyFd, operation, fd, &event) < 0)
    throwErrno(info.Env(), "epoll_ctl", errno);
  machine.watched[fd] = {token, isNotifier, events != 0};
}

bool takeReady(Machine& machine, uint32_t* token) {
  for (;;) {
    if (machine.ready.empty()) {
      if (!machine.readyWaits) return false;
      machine.readyWaits = false;
      epoll_event events[16];
      // Descriptors that stay ready are returned in turn: epoll puts each at the end of its list.
      int n = epoll_wait(machine.readyFd, events, 16, 0);
      for (int i = 0; i < n; i++) machine.ready.push_back(events[i].data.fd);
      if (n <= 0) return false;
    }
    int fd = machine.ready.front();
    machine.ready.pop_front();
    auto it = machine.watched.find(fd);
    if (it == machine.watched.end() || !it->second.isPolled) continue;
    uint64_t count;
    // EAGAIN: an earlier event has taken these notifications.
    if (it->second.isNotifier && read(fd, &count, sizeof count) < 0) continue;
    *token = it->second.token;
    return true;
  }
}

// machineAddNotifier(machine, gpa, queue, token): writes of `queue`, 4 bytes, to `gpa` are events with this token.
static void machineAddNotifier(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  kvm_ioeventfd request = {};
  request.addr = static_cast<uint64_t>(integerArg(info, 1, 0, int64_t{1} << 46));
  request.datamatch = static_cast<uint64_t>(integerArg(info, 2, 0, UINT32_MAX));
  auto token = static_cast<uint32_t>(integerArg(info, 3, 0, UINT32_MAX));
  request.len = 4;
  request.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
  request.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (request.fd < 0) throwErrno(info.Env(), "eventfd", errno);
  if (ioctl(machine->vmFd, KVM_IOEVENTFD, &request) < 0) {
    int err = errno;
    close(request.fd);
    throwErrno(info.Env(), "KVM_IOEVENTFD", err);
  }
  try {
    watch(info, *machine, request.fd, EPOLLIN, token, true);
  } catch (...) {
    close(request.fd);
    throw;
  }
}

// machineWatchFd(machine, fd, token, events): events 1 read, 2 write. Watches, or changes how a descriptor is watched. 0:
// no event, also when its other end is closed.
static void machineWatchFd(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  auto fd = static_cast<int>(integerArg(info, 1, 0, INT32_MAX));
  auto token = static_cast<uint32_t>(integerArg(info, 2, 0, UINT32_MAX));
  auto events = integerArg(info, 3, 0, 3);
  auto it = machine->watched.find(fd);
  if (it != machine->watched.end() && it->second.isNotifier) throwContract(info.Env(), "a notifier cannot be watched");
  watch(info, *machine, fd, ((events & 1) != 0 ? EPOLLIN : 0u) | ((events & 2) != 0 ? EPOLLOUT : 0u), token, false);
}

// machineUnwatchFd(machine, fd)
static void machineUnwatchFd(const Napi::CallbackInfo& info) {
  auto machine = findMachine(info);
  if (!machine) return;
  auto fd = static_cast<int>(integerArg(info, 1, 0, INT32_MAX));
  auto it = machine->watched.find(fd);
  if (it == machine->watched.end() || it->second.isNotifier) return;
  machine->watched.erase(it);
  machine->ready.erase(std::remove(machine->ready.begin(), machine->ready.end(), fd), machine->ready.end());
  epoll_ctl(machine->readyFd, EPOLL_CTL_DEL, fd, nullptr);
}

// machineCreateIrq(machine, gsi) → number of the interrupt: edge-triggered, so KVM does not watch for its end.
static Napi::Value machineCreateIrq(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  kvm_irqfd request = {};
  request.gsi = static_cast<uint32_t>(integerArg(info, 1, 0, 4095));
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throwErrno(info.Env(), "eventfd", errno);
  request.fd = static_cast<uint32_t>(fd);
  if (ioctl(machine->vmFd, KVM_IRQFD, &request) < 0) {
    int err = errno;
    close(fd);
    throwErrno(info.Env(), "KVM_IRQFD", err);
  }
  machine->irqs.push_back(fd);
  return Napi::Number::New(info.Env(), static_cast<double>(machine->irqs.size() - 1));
}

// machineRaiseIrq(machine, irq): one pulse. Device thread.
static void machineRaiseIrq(const Napi::CallbackInfo& info) {
  auto machine = findMachine(info);
  if (!machine) return;
  auto irq = static_cast<size_t>(integerArg(info, 1, 0, 4095));
  if (irq >= machine->irqs.size()) throwContract(info.Env(), "no such interrupt");
  uint64_t one = 1;
  // EAGAIN: KVM has not taken the pulses before this one, so they are one.
  if (write(machine->irqs[irq], &one, sizeof one) < 0 && errno != EAGAIN)
    throwErrno(info.Env(), "write of an eventfd", errno);
}

void initEvents(Napi::Env env, Napi::Object exports) {
  exports.Set("machineAddNotifier", Napi::Function::New(env, machineAddNotifier));
  exports.Set("machineWatchFd", Napi::Function::New(env, machineWatchFd));
  exports.Set("machineUnwatchFd", Napi::Function::New(env, machineUnwatchFd));
  exports.Set("machineCreateIrq", Napi::Function::New(env, machineCreateIrq));
  exports.Set("machineRaiseIrq", Napi::Function::New(env, machineRaiseIrq));
}

}  // namespace livesnap
