// A KVM virtual machine: its file descriptors, its memory slots and its vCPU threads. Mechanism only: which ioctls
// are made in what order, what an exit means and what answers it is decided in src/vmm.
//
// Threads. A vCPU thread runs KVM_RUN and hands each exit to the device thread, the one JS thread that called
// machineAttach; it then sleeps until the exit is answered. `wait()` blocks the device thread natively on exits, the
// pause that has been asked for, and the thread's own event loop. No vCPU thread ever calls into JavaScript.
//
// A vCPU is in one place at a time (Vcpu::phase): running (its thread owns it), in an exit (the device thread owns
// it), or parked (nobody runs it; its pending PIO, MMIO and MSR accesses have been completed). State ioctls on a
// vCPU are made only in the last two.
#pragma once
#include <linux/kvm.h>
#include <napi.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "memory.h"

namespace livesnap {

// What wait() returns. Mirrored in src/native/kvm.ts.
enum WaitEvent : uint32_t {
  kEventLoop = 0,     // the thread's own event loop has work: let it run once
  kEventExit = 1,     // a vCPU exit is in the exit page; the next wait() answers it
  kEventParked = 2,   // every vCPU is parked, once for each requestPause()
  kEventDead = 3,     // the machine was killed: leave the loop
  kEventTimeout = 4,  // nothing happened within timeoutMs
  kEventPosted = 5,   // posted writes are in the exit page (address, count, data); there is nothing to answer
};

// The exit page: 32-bit words, then the data of a port or memory access. Mirrored in src/native/kvm.ts.
enum ExitWord : size_t {
  kWordVcpu = 0,
  kWordReason = 1,      // KVM_EXIT_*, or kReasonRunFailed
  kWordIsWrite = 2,     // 1: the guest writes
  kWordSize = 3,        // bytes of one item (1, 2, 4; MMIO up to 8)
  kWordCount = 4,       // items of a string I/O instruction
  kWordAddressLow = 5,  // port, guest-physical address or MSR index
  kWordAddressHigh = 6,
  kWordDataLow = 7,  // MSR value; KVM_EXIT_SYSTEM_EVENT's type; errno of a failed KVM_RUN
  kWordDataHigh = 8,
  kWordError = 9,  // MSR: set by the reply, 1 injects #GP
  kWordSuberror = 10,
  kExitDataOffset = 64,  // bytes; also where the data of a KVM_EXIT_INTERNAL_ERROR is, kWordCount items of 8 bytes
  kExitDataSize = 4096,
  kExitPageSize = kExitDataOffset + kExitDataSize,
};
constexpr uint32_t kReasonRunFailed = 0xffffffff;

struct Machine;

struct Vcpu {
  enum Phase : uint32_t { kParked, kRunning, kInExit };
  Machine* machine = nullptr;
  uint32_t index = 0;
  int fd = -1;
  kvm_run* run = nullptr;
  size_t runSize = 0;
  pthread_t thread{};
  bool started = false;
  int runErrno = 0;
  std::atomic<uint32_t> phase{kParked};  // also the futex its thread sleeps on while in an exit
};

struct Machine {
  int kvmFd = -1;
  int vmFd = -1;
  int wakeFd = -1;   // eventfd: exits, parking, death
  int epollFd = -1;  // wakeFd and the device thread's event loop
  size_t xsaveSize = 4096;
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::vector<std::pair<kvm_userspace_memory_region, std::shared_ptr<Memory>>> slots;
  std::mutex slotsMutex;

  std::mutex mutex;  // guards the fields below
  std::condition_variable unpaused;
  std::deque<uint32_t> exits;
  bool waiterAsleep = false;
  bool parkedReported = true;
  uint32_t parkedCount = 0;
  // Posted writes: bytes that the guest wrote to a port where a write has no effect but to send, gathered without an
  // exit to the device thread for each. They are delivered before any later exit, and before "parked".
  uint8_t posted[1024];
  size_t postedBytes = 0;
  int postedFrom = -1;              // the port they were written to
  bool postedUrgent = false;        // a line has ended, or the room is half used
  std::atomic<int> postedPort{-1};  // -1: every write is an exit
  std::atomic<bool> pauseWanted{true};  // threads start parked
  std::atomic<bool> stopping{false};
  std::atomic<bool> dead{false};

  // Device thread only.
  bool attached = false;
  uint8_t* exitPage = nullptr;
  int answering = -1;  // the vCPU whose exit is in the exit page
  uint64_t loopPolledNs = 0;

  ~Machine();
  void wake();
  void kickAll();
  void stopThreads();  // ends and joins every vCPU thread; any thread but theirs; idempotent
};

// The machine of the call's first argument; null when it is closed. Any JS thread.
std::shared_ptr<Machine> findMachine(const Napi::CallbackInfo& info);

// Bytes of the data of a KVM_EXIT_IO, clipped to what it can be, so that no field of a kvm_run is trusted for a copy.
size_t pioBytes(const Vcpu& vcpu);

void initMachine(Napi::Env env, Napi::Object exports);
void initExits(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
