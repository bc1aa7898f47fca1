// Exits on the device thread: machineWait, exits written to the exit page, and answers read from it.
// Invariant: a kvm_run is read and written here only while its vCPU is in an exit.
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "errors.h"
#include "machine.h"
#include "vcpu_thread.h"

namespace livesnap {

// How long posted writes may wait for more of their line.
constexpr int kGatherMs = 1;

static uint64_t nowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

static void setWord(Machine& machine, size_t word, uint64_t value) {
  reinterpret_cast<uint32_t*>(machine.exitPage)[word] = static_cast<uint32_t>(value);
}

size_t pioBytes(const Vcpu& vcpu) {
  const auto& io = vcpu.run->io;
  if (io.data_offset > vcpu.runSize) return 0;
  size_t bytes = static_cast<size_t>(io.size) * io.count;
  size_t room = vcpu.runSize - io.data_offset;
  return bytes <= room && bytes <= kExitDataSize ? bytes : 0;
}

static void describeExit(Machine& machine, Vcpu& vcpu) {
  kvm_run& run = *vcpu.run;
  uint8_t* data = machine.exitPage + kExitDataOffset;
  memset(machine.exitPage, 0, kExitDataOffset);  // clears the words of the last exit
  setWord(machine, kWordVcpu, vcpu.index);
  setWord(machine, kWordReason, run.exit_reason);
  if (vcpu.runErrno != 0) {
    setWord(machine, kWordReason, kReasonRunFailed);
    setWord(machine, kWordDataLow, vcpu.runErrno);
    return;
  }
  switch (run.exit_reason) {
    case KVM_EXIT_IO: {
      size_t bytes = pioBytes(vcpu);
      setWord(machine, kWordIsWrite, run.io.direction == KVM_EXIT_IO_OUT);
      setWord(machine, kWordSize, run.io.size);
      setWord(machine, kWordCount, run.io.size == 0 ? 0 : bytes / run.io.size);
      setWord(machine, kWordAddressLow, run.io.port);
      setWord(machine, kWordAddressHigh, 0);
      if (run.io.direction == KVM_EXIT_IO_OUT) memcpy(data, reinterpret_cast<uint8_t*>(&run) + run.io.data_offset, bytes);
      break;
    }
    case KVM_EXIT_MMIO:
      setWord(machine, kWordIsWrite, run.mmio.is_write);
      setWord(machine, kWordSize, run.mmio.len <= 8 ? run.mmio.len : 8);
      setWord(machine, kWordCount, 1);
      setWord(machine, kWordAddressLow, run.mmio.phys_addr);
      setWord(machine, kWordAddressHigh, run.mmio.phys_addr >> 32);
      if (run.mmio.is_write) memcpy(data, run.mmio.data, 8);
      break;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      setWord(machine, kWordAddressLow, run.msr.index);
      setWord(machine, kWordAddressHigh, 0);
      setWord(machine, kWordDataLow, run.msr.data);
      setWord(machine, kWordDataHigh, run.msr.data >> 32);
      break;
    case KVM_EXIT_SYSTEM_EVENT:
      setWord(machine, kWordDataLow, run.system_event.type);
      break;
    case KVM_EXIT_INTERNAL_ERROR:
      setWord(machine, kWordSuberror, run.internal.suberror);
      setWord(machine, kWordSize, sizeof run.internal.data[0]);
      setWord(machine, kWordCount, std::min<size_t>(run.internal.ndata, std::size(run.internal.data)));
      memcpy(data, run.internal.data, sizeof run.internal.data);
      break;
    case KVM_EXIT_FAIL_ENTRY:
      setWord(machine, kWordDataLow, run.fail_entry.hardware_entry_failure_reason);
      setWord(machine, kWordDataHigh, run.fail_entry.hardware_entry_failure_reason >> 32);
      break;
    default:
      break;
  }
}

// Writes of one port, one byte each. Call with the machine's mutex held.
static void describePosted(Machine& machine) {
  setWord(machine, kWordIsWrite, 1);
  setWord(machine, kWordSize, 1);
  setWord(machine, kWordCount, machine.postedBytes);
  setWord(machine, kWordAddressLow, static_cast<uint32_t>(machine.postedFrom));
  setWord(machine, kWordAddressHigh, 0);
  memcpy(machine.exitPage + kExitDataOffset, machine.posted, machine.postedBytes);
  machine.postedBytes = 0;
  machine.postedUrgent = false;
}

static void answerExit(Machine& machine) {
  if (machine.answering < 0) return;
  Vcpu& vcpu = *machine.vcpus[machine.answering];
  machine.answering = -1;
  kvm_run& run = *vcpu.run;
  const uint8_t* data = machine.exitPage + kExitDataOffset;
  const auto* words = reinterpret_cast<const uint32_t*>(machine.exitPage);
  if (vcpu.runErrno == 0) {
    if (run.exit_reason == KVM_EXIT_IO && run.io.direction == KVM_EXIT_IO_IN)
      memcpy(reinterpret_cast<uint8_t*>(&run) + run.io.data_offset, data, pioBytes(vcpu));
    else if (run.exit_reason == KVM_EXIT_MMIO && !run.mmio.is_write)
      memcpy(run.mmio.data, data, 8);
    else if (run.exit_reason == KVM_EXIT_X86_RDMSR || run.exit_reason == KVM_EXIT_X86_WRMSR) {
      run.msr.error = words[kWordError] != 0;
      if (run.exit_reason == KVM_EXIT_X86_RDMSR)
        run.msr.data = words[kWordDataLow] | (static_cast<uint64_t>(words[kWordDataHigh]) << 32);
    }
  }
  resumeFromExit(vcpu);
}

// machineHoldExit(machine) → the vCPU of the exit that the last machineWait returned, a write. It is answered by
// machineReleaseExit, or at the end of the machine, instead of by the next machineWait. Device thread.
static Napi::Value machineHoldExit(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  if (machine->answering < 0) throwContract(info.Env(), "no exit waits for its answer");
  int vcpu = machine->answering;
  machine->answering = -1;
  return Napi::Number::New(info.Env(), vcpu);
}

// machineReleaseExit(machine, vcpu). Device thread.
static void machineReleaseExit(const Napi::CallbackInfo& info) {
  auto machine = findMachine(info);
  if (!machine) return;
  auto index = static_cast<size_t>(integerArg(info, 1, 0, 4096));
  if (index >= machine->vcpus.size() || machine->vcpus[index]->phase.load() != Vcpu::kInExit)
    throwContract(info.Env(), "no exit of this vCPU is held");
  resumeFromExit(*machine->vcpus[index]);
}

// machineWait(machine, timeoutMs) → WaitEvent. Answers the exit that the last call returned, then blocks until the next
// event (timeoutMs < 0: no limit). Device thread. Timers and immediates of that thread do not end the wait: it has none
// but the immediate that it awaits after kEventLoop.
static Napi::Value machineWait(const Napi::CallbackInfo& info) {
  // Not machineArg: a machine that the main thread has closed is dead, and no error.
  auto machine = findMachine(info);
  auto result = [&](WaitEvent event) { return Napi::Number::New(info.Env(), event); };
  if (!machine) return result(kEventDead);
  if (machine->exitPage == nullptr) throwContract(info.Env(), "this thread is not the device thread");
  auto timeoutMs = static_cast<int>(integerArg(info, 1, -1, 3600000));
  answerExit(*machine);
  auto returnReady = [&] {
    uint32_t token;
    if (!takeReady(*machine, &token)) return false;
    setWord(*machine, kWordToken, token);
    machine->readyLast = true;
    return true;
  };
  // The first round only polls; later ones block. A guest that exits all the time must starve neither this thread's event
  // loop nor the watched descriptors: once a millisecond they are polled, and the loop comes before all else. Exits and
  // ready descriptors take turns.
  bool gathered = false;  // posted writes have waited kGatherMs for more
  for (bool mayBlock = false;; mayBlock = true) {
    if (machine->dead) return result(kEventDead);
    bool gathering = false;
    if (mayBlock || nowNs() - machine->loopPolledNs < 1000000) {
      if (!machine->readyLast && returnReady()) return result(kEventReady);
      machine->readyLast = false;
      std::unique_lock<std::mutex> lock(machine->mutex);
      machine->waiterAsleep = false;
      bool parked = !machine->parkedReported && machine->parkedCount == machine->vcpus.size();
      if (machine->postedBytes > 0) {
        if (gathered || parked || machine->postedUrgent || !machine->exits.empty()) {
          describePosted(*machine);
          return result(kEventPosted);
        }
        gathering = true;
      }
      if (!machine->exits.empty()) {
        uint32_t index = machine->exits.front();
        machine->exits.pop_front();
        machine->answering = static_cast<int>(index);
        describeExit(*machine, *machine->vcpus[index]);
        return result(kEventExit);
      }
      if (parked) {
        machine->parkedReported = true;
        return result(kEventParked);
      }
      machine->waiterAsleep = mayBlock;
      lock.unlock();
      if (returnReady()) return result(kEventReady);
    }
    epoll_event events[3];
    int n = epoll_wait(machine->epollFd, events, 3, !mayBlock ? 0 : gathering ? kGatherMs : timeoutMs);
    if (n < 0 && errno != EINTR) throwErrno(info.Env(), "epoll_wait", errno);
    machine->loopPolledNs = nowNs();
    bool loopReady = false;
    for (int i = 0; i < n; i++) {
      uint64_t count;
      if (events[i].data.fd == machine->readyFd)
        machine->readyWaits = true;
      else if (events[i].data.fd != machine->wakeFd)
        loopReady = true;
      else if (read(machine->wakeFd, &count, sizeof count) < 0 && errno != EAGAIN)
        throwErrno(info.Env(), "read of an eventfd", errno);
    }
    if (loopReady) return result(kEventLoop);
    if (mayBlock && n == 0) {
      if (!gathering) return result(kEventTimeout);
      gathered = true;
    }
  }
}

void initExits(Napi::Env env, Napi::Object exports) {
  exports.Set("machineHoldExit", Napi::Function::New(env, machineHoldExit));
  exports.Set("machineReleaseExit", Napi::Function::New(env, machineReleaseExit));
  exports.Set("machineWait", Napi::Function::New(env, machineWait));
}

}  // namespace livesnap
