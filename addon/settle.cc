#include "settle.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace livesnap {

constexpr uint8_t kInt3 = 0xcc, kInto = 0xce;
constexpr uint8_t kBreakpoint = 3, kOverflow = 4;
// Enough for KVM to deliver an exception and to run some instructions of its handler.
constexpr long kMomentNs = 30000;

// The byte of guest memory at a linear address of the vCPU; -1 where there is none.
static int byteAt(Vcpu& vcpu, uint64_t address) {
  kvm_translation translation = {};
  translation.linear_address = address;
  if (ioctl(vcpu.fd, KVM_TRANSLATE, &translation) < 0 || !translation.valid) return -1;
  std::lock_guard<std::mutex> lock(vcpu.machine->slotsMutex);
  for (const auto& [region, memory] : vcpu.machine->slots) {
    uint64_t offset = translation.physical_address - region.guest_phys_addr;
    if (translation.physical_address >= region.guest_phys_addr && offset < region.memory_size)
      return __atomic_load_n(memory->base + offset, __ATOMIC_RELAXED);
  }
  return -1;
}

bool mayHideBreakpoint(Vcpu& vcpu) {
  kvm_vcpu_events events;
  if (ioctl(vcpu.fd, KVM_GET_VCPU_EVENTS, &events) < 0) return false;
  if (events.exception.nr != kBreakpoint && events.exception.nr != kOverflow) return false;
  kvm_regs regs;
  if (ioctl(vcpu.fd, KVM_GET_REGS, &regs) < 0) return false;
  int before = byteAt(vcpu, regs.rip - 1);
  return before == kInt3 || before == kInto;
}

KickSoon::KickSoon(int signal) {
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal;
  event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
  made_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
  itimerspec after = {};
  after.it_value.tv_nsec = kMomentNs;
  armed_ = made_ && timer_settime(timer_, 0, &after, nullptr) == 0;
}

KickSoon::~KickSoon() {
  if (made_) timer_delete(timer_);
}

}  // namespace livesnap
