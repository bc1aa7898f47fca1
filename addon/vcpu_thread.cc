// A vCPU thread: it runs the guest, hands over an exit, sleeps until the exit is answered, and parks on request.
//
// Invariants:
// - A thread parks only after KVM has completed the access of its last exit, by KVM_RUN with immediate_exit set (Linux,
//   Documentation/virt/kvm/api.rst, KVM_RUN).
// - No kick is lost: its handler sets immediate_exit before the thread can enter the guest again.
// - Every signal but the kick is blocked, so that signals to the process go to other threads.
#include "vcpu_thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace livesnap {

static thread_local kvm_run* currentRun = nullptr;

static int kickSignal() { return SIGRTMIN; }

static void onKick(int) {
  if (currentRun != nullptr) __atomic_store_n(&currentRun->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

static void futexWait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

static void futexWake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

void kickVcpu(Vcpu& vcpu) {
  if (!vcpu.started) return;
  pthread_kill(vcpu.thread, kickSignal());
}

void resumeFromExit(Vcpu& vcpu) {
  vcpu.phase.store(Vcpu::kRunning);
  futexWake(vcpu.phase);
}

static void park(Vcpu& vcpu) {
  Machine& machine = *vcpu.machine;
  std::unique_lock<std::mutex> lock(machine.mutex);
  if (!machine.pauseWanted) return;
  vcpu.phase.store(Vcpu::kParked);
  machine.parkedCount++;
  if (machine.parkedCount == machine.vcpus.size()) machine.wake();
  machine.unpaused.wait(lock, [&] { return !machine.pauseWanted || machine.stopping; });
  machine.parkedCount--;
  vcpu.phase.store(Vcpu::kRunning);
}

static void handOver(Vcpu& vcpu) {
  Machine& machine = *vcpu.machine;
  vcpu.phase.store(Vcpu::kInExit);
  {
    std::lock_guard<std::mutex> lock(machine.mutex);
    machine.exits.push_back(vcpu.index);
    if (machine.waiterAsleep) machine.wake();
  }
  while (vcpu.phase.load() == Vcpu::kInExit && !machine.stopping) futexWait(vcpu.phase, Vcpu::kInExit);
}

// Gathers a write to the posted port, without an exit to the device thread. False: the exit must be handed over, because
// it is another access or there is no room. Writes that were gathered are delivered before it.
static bool post(Vcpu& vcpu) {
  Machine& machine = *vcpu.machine;
  const kvm_run& run = *vcpu.run;
  int port = machine.postedPort;
  if (port < 0 || run.exit_reason != KVM_EXIT_IO || run.io.direction != KVM_EXIT_IO_OUT || run.io.size != 1 ||
      run.io.port != port)
    return false;
  size_t bytes = pioBytes(vcpu);
  const uint8_t* data = reinterpret_cast<const uint8_t*>(&run) + run.io.data_offset;
  std::lock_guard<std::mutex> lock(machine.mutex);
  if (bytes == 0 || bytes > sizeof machine.posted - machine.postedBytes) return false;
  if (machine.postedBytes > 0 && machine.postedFrom != port) return false;
  bool first = machine.postedBytes == 0;
  memcpy(machine.posted + machine.postedBytes, data, bytes);
  machine.postedBytes += bytes;
  machine.postedFrom = port;
  if (memchr(data, '\n', bytes) != nullptr || machine.postedBytes > sizeof machine.posted / 2)
    machine.postedUrgent = true;
  if (machine.waiterAsleep && (first || machine.postedUrgent)) machine.wake();
  return true;
}

static void* vcpuMain(void* argument) {
  Vcpu& vcpu = *static_cast<Vcpu*>(argument);
  Machine& machine = *vcpu.machine;
  currentRun = vcpu.run;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, kickSignal());
  pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);

  bool completionPending = false;  // KVM has not completed the access of the last exit
  while (!machine.stopping) {
    if (machine.pauseWanted) {
      if (!completionPending) {
        park(vcpu);
        continue;
      }
      __atomic_store_n(&vcpu.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    }
    int rc = ioctl(vcpu.fd, KVM_RUN, 0);
    if (rc < 0 && (errno == EINTR || errno == EAGAIN)) {
      __atomic_store_n(&vcpu.run->immediate_exit, 0, __ATOMIC_SEQ_CST);
      completionPending = false;
      continue;
    }
    vcpu.runErrno = rc < 0 ? errno : 0;
    if (rc == 0 && vcpu.run->exit_reason == KVM_EXIT_INTR) continue;
    completionPending = rc == 0;
    if (rc < 0 || !post(vcpu)) handOver(vcpu);
  }
  currentRun = nullptr;
  return nullptr;
}

int startVcpuThread(Vcpu& vcpu) {
  static std::once_flag installed;
  std::call_once(installed, [] {
    struct sigaction action = {};
    action.sa_handler = onKick;
    sigemptyset(&action.sa_mask);
    sigaction(kickSignal(), &action, nullptr);
  });
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int err = pthread_create(&vcpu.thread, nullptr, vcpuMain, &vcpu);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (err != 0) return err;
  vcpu.started = true;
  char name[16];
  snprintf(name, sizeof name, "vcpu%u", vcpu.index);
  pthread_setname_np(vcpu.thread, name);
  return 0;
}

void Machine::wake() {
  uint64_t one = 1;
  if (write(wakeFd, &one, sizeof one) < 0) return;  // EAGAIN: the counter is full, so the thread wakes anyway
}

void Machine::kickAll() {
  for (auto& vcpu : vcpus) kickVcpu(*vcpu);
}

void Machine::halt() {
  std::lock_guard<std::mutex> halt(haltMutex);
  if (halted) return;  // its threads may be joined already
  halted = true;
  dead = true;
  {
    std::lock_guard<std::mutex> lock(mutex);
    stopping = true;
    unpaused.notify_all();
  }
  for (auto& vcpu : vcpus) {
    if (!vcpu->started) continue;
    // Wakes it from an exit (futex) or ends KVM_RUN (kick). notify_all above woke it from a park.
    if (vcpu->phase.load() == Vcpu::kInExit) resumeFromExit(*vcpu);
    futexWake(vcpu->phase);
    kickVcpu(*vcpu);
  }
  wake();
}

void Machine::stopThreads() {
  halt();
  std::function<void()> letContinue;
  {
    std::lock_guard<std::mutex> lock(haltMutex);
    letContinue.swap(halting);
  }
  if (letContinue) letContinue();
  for (auto& vcpu : vcpus) {
    if (!vcpu->started) continue;
    pthread_join(vcpu->thread, nullptr);
    vcpu->started = false;
  }
}

}  // namespace livesnap
