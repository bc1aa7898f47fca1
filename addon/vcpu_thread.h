#pragma once
#include "machine.h"

namespace livesnap {

// Installs the handler of the kick signal (once a process) and starts the thread of one vCPU, parked. JS thread.
// Returns 0 or an errno value.
int startVcpuThread(Vcpu& vcpu);

// Interrupts KVM_RUN of a vCPU, now or at its next entry. Any thread.
void kickVcpu(Vcpu& vcpu);

// Gives an answered vCPU back to its thread. Device thread.
void resumeFromExit(Vcpu& vcpu);

}  // namespace livesnap
