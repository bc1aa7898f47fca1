// A KVM virtual machine: its file descriptors, its memory slots and its vCPU threads. Mechanism only: src/vmm decides
// the order of ioctls, the meaning of exits and their answers.
//
// Threads:
// - A vCPU thread runs KVM_RUN, hands each exit to the device thread, and sleeps until the exit is answered. It never
//   calls into JavaScript.
// - The device thread is the one JS thread that called machineAttach. machineWait blocks it natively until there is an
//   exit, a requested pause is complete, or its own event loop has work.
//
// A vCPU is in one phase at a time (Vcpu::phase):
// - running: its thread owns it;
// - in an exit: the device thread owns it;
// - parked: nobody runs it, and its pending PIO, MMIO and MSR accesses are completed.
// State ioctls on a vCPU are made only in the last two phases.
#pragma once
#include <linux/kvm.h>
#include <napi.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "memory.h"

namespace livesnap {

// Results of machineWait. Mirrored in src/native/kvm.ts.
enum WaitEvent : uint32_t {
  kEventLoop = 0,     // the thread's own event loop has work: run it once
  kEventExit = 1,     // an exit is in the exit page; the next machineWait answers it
  kEventParked = 2,   // every vCPU is parked; once per machineRequestPause
  kEventDead = 3,     // the machine was killed: leave the loop
  kEventTimeout = 4,  // nothing happened within timeoutMs
  kEventPosted = 5,   // posted writes are in the exit page (address, count, data); they need no answer
  kEventReady = 6,    // a notifier was written or a watched descriptor is ready: its token is in the exit page
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
  kWordToken = 11,
  kExitDataOffset = 64,  // in bytes; for KVM_EXIT_INTERNAL_ERROR, kWordCount items of 8 bytes are here
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
  std::atomic<uint32_t> phase{kParked};  // in an exit, also the futex on which the vCPU thread sleeps
};

// A descriptor whose readiness is a kEventReady.
struct Watched {
  uint32_t token;
  bool isNotifier;  // an eventfd of the machine, emptied before its event is returned
  bool isPolled;    // in readyFd; not while nothing is asked for, because epoll reports hang-ups and errors unasked
};

struct Machine {
  int kvmFd = -1;
  int vmFd = -1;
  int wakeFd = -1;   // eventfd: exits, parking, death
  int epollFd = -1;  // wakeFd, readyFd and the device thread's event loop
  int readyFd = -1;  // an epoll of notifiers and watched descriptors
  size_t xsaveSize = 4096;
  bool readsLog = false;  // KVM_GET_DIRTY_LOG leaves the log as it is, and KVM_CLEAR_DIRTY_LOG clears it
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::vector<std::pair<kvm_userspace_memory_region, std::shared_ptr<Memory>>> slots;
  std::mutex slotsMutex;

  std::mutex mutex;  // guards the fields below
  std::condition_variable unpaused;
  std::deque<uint32_t> exits;
  bool waiterAsleep = false;
  bool parkedReported = true;
  uint32_t parkedCount = 0;
  // Posted writes: bytes written to a port where a write does nothing but send. The vCPU thread gathers them, without an
  // exit to the device thread for each. They are delivered before any later exit, and before kEventParked.
  uint8_t posted[1024];
  size_t postedBytes = 0;
  int postedFrom = -1;              // the port they were written to
  bool postedUrgent = false;        // deliver now: a line has ended, or half of the buffer is used
  std::atomic<int> postedPort{-1};  // -1: every write is an exit
  std::atomic<bool> pauseWanted{true};  // threads start parked
  std::atomic<bool> stopping{false};
  std::atomic<bool> dead{false};

  std::mutex haltMutex;  // guards the next two
  bool halted = false;
  std::function<void()> halting;  // what lets vCPU threads continue that wait in a page fault; called once

  // Device thread only.
  bool attached = false;
  uint8_t* exitPage = nullptr;
  int answering = -1;  // the vCPU whose exit is in the exit page
  uint64_t loopPolledNs = 0;
  std::map<int, Watched> watched;  // by descriptor
  std::deque<int> ready;           // descriptors found ready, whose events are not returned yet
  bool readyWaits = false;         // readyFd was readable and has not been asked since
  bool readyLast = false;          // the last event was a kEventReady, so an exit comes first now
  std::vector<int> irqs;           // eventfds of KVM_IRQFD

  ~Machine();
  void wake();
  void kickAll();
  // From now on no vCPU runs the guest: each thread ends when the kernel lets it. machineWait returns kEventDead. Any thread.
  void halt();
  void stopThreads();  // ends and joins every vCPU thread; any thread but a vCPU's; may be called again
};

// The machine of the call's first argument; null when it is closed. Any JS thread.
std::shared_ptr<Machine> findMachine(const Napi::CallbackInfo& info);

// The same; throws MACHINE_GONE when it is closed.
std::shared_ptr<Machine> machineArg(const Napi::CallbackInfo& info);

// Size of the data of a KVM_EXIT_IO; 0 if the fields of the kvm_run lead outside it, since no copy may trust them.
size_t pioBytes(const Vcpu& vcpu);

// The next descriptor that is ready, its notifications taken; false if there is none. Device thread.
bool takeReady(Machine& machine, uint32_t* token);

void initEvents(Napi::Env env, Napi::Object exports);
void initMachine(Napi::Env env, Napi::Object exports);
void initExits(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
