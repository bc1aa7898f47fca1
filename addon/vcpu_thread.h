#pragma once
#include "machine.h"

namespace livesnap {

// Starts the thread of one vCPU, parked. Installs the handler of the kick signal, once per process. Returns 0 or an
// errno value. JS thread.
int startVcpuThread(Vcpu& vcpu);

// Interrupts KVM_RUN of a vCPU, now or at its next entry. Any thread.
void kickVcpu(Vcpu& vcpu);

// Returns a vCPU whose exit is answered to its thread. Device thread.
void resumeFromExit(Vcpu& vcpu);

}  // namespace livesnap
