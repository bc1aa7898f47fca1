// Where KVM may hide a breakpoint of a vCPU, and how the vCPU gets past it.
//
// KVM_GET_VCPU_EVENTS leaves out the exceptions of int3 and into, because a vCPU whose instruction pointer is at the
// instruction meets it again (Linux, arch/x86/kvm/x86.c, kvm_vcpu_ioctl_x86_get_vcpu_events). PVM queues them behind the
// instruction, and so does an emulated int3 that livesnap finishes. State that is read then lacks the exception.
// Nothing tells it from a vCPU that has just returned from its handler, so the vCPU runs on until neither is possible.
//
// Thread: that of the vCPU, which is not in KVM_RUN.
#pragma once
#include <time.h>

#include "machine.h"

namespace livesnap {

// Whether the last exception was one of int3 or into, and the instruction pointer is directly behind such an instruction.
bool mayHideBreakpoint(Vcpu& vcpu);

// A kick to the calling thread a moment later, so that KVM_RUN returns. Each object is for one KVM_RUN.
class KickSoon {
 public:
  explicit KickSoon(int signal);
  ~KickSoon();
  KickSoon(const KickSoon&) = delete;
  KickSoon& operator=(const KickSoon&) = delete;
  // False: the system has no timer left, and no kick comes.
  bool isArmed() const { return armed_; }

 private:
  timer_t timer_{};
  bool made_ = false;
  bool armed_ = false;
};

}  // namespace livesnap
