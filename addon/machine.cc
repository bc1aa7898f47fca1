// What TypeScript can do with a machine. Every function runs on the JS thread that calls it: those marked "device
// thread" on the one that attached, the others on any.
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "errors.h"
#include "registry.h"
#include "vcpu_thread.h"

// libuv's own: the fd that is readable when a loop has work (uv.h is not among Node-API's headers).
extern "C" int uv_backend_fd(const struct uv_loop_s* loop);

namespace livesnap {

static Registry<Machine>& machines() {
  static auto* registry = new Registry<Machine>();
  return *registry;
}

static std::shared_ptr<Machine> machineArg(const Napi::CallbackInfo& info) {
  auto machine = machines().find(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (!machine) throwContract(info.Env(), "this machine is closed");
  return machine;
}

Machine::~Machine() {
  stopThreads();
  for (auto& vcpu : vcpus) {
    if (vcpu->run != nullptr) munmap(vcpu->run, vcpu->runSize);
    if (vcpu->fd >= 0) close(vcpu->fd);
  }
  for (int fd : {vmFd, kvmFd, wakeFd, epollFd})
    if (fd >= 0) close(fd);
}

static int openKvm(Napi::Env env) {
  int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (fd < 0) throwErrno(env, "open /dev/kvm", errno);
  return fd;
}

// How many bytes of its argument an ioctl reads or writes: the size in its number, or, where the structure ends in an
// array, what the count at its head says. SIZE_MAX for those that carry pointers and are not made from TypeScript.
static size_t ioctlSize(uint64_t request, const Bytes& bytes, size_t xsaveSize) {
  uint32_t count = 0;
  if (bytes.length >= 4) memcpy(&count, bytes.data, 4);
  switch (request) {
    case KVM_GET_SUPPORTED_CPUID:
    case KVM_GET_EMULATED_CPUID:
    case KVM_SET_CPUID2:
    case KVM_GET_CPUID2:
      return sizeof(kvm_cpuid2) + count * sizeof(kvm_cpuid_entry2);
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
      return sizeof(kvm_msrs) + count * sizeof(kvm_msr_entry);
    case KVM_GET_MSR_INDEX_LIST:
      return sizeof(kvm_msr_list) + count * sizeof(uint32_t);
    case KVM_GET_XSAVE:
    case KVM_GET_XSAVE2:
    case KVM_SET_XSAVE:
      return xsaveSize;
    case KVM_GET_DIRTY_LOG:
    case KVM_X86_SET_MSR_FILTER:
    case KVM_SET_USER_MEMORY_REGION:
      return SIZE_MAX;
    default:
      return _IOC_SIZE(request);
  }
}

// ioctl(fd, request, argument) with argument an integer, or a Uint8Array long enough for what the kernel reads and
// writes. Returns the ioctl's result; throws SystemError named after `what`.
static Napi::Value doIoctl(const Napi::CallbackInfo& info, size_t first, int fd, size_t xsaveSize, const char* what) {
  auto request = static_cast<uint64_t>(integerArg(info, first, 0, UINT32_MAX));
  int rc;
  if (info[first + 1].IsNumber()) {
    auto value = static_cast<uint64_t>(integerArg(info, first + 1, 0, INT64_MAX >> 10));
    if (_IOC_DIR(request) != _IOC_NONE) throwContract(info.Env(), "this ioctl takes bytes");
    do rc = ioctl(fd, request, value);
    while (rc < 0 && errno == EINTR);
  } else {
    auto bytes = bytesArg(info, first + 1);
    if (bytes.length < ioctlSize(request, bytes, xsaveSize) || bytes.length < _IOC_SIZE(request))
      throwContract(info.Env(), "an ioctl's argument is too short");
    if (_IOC_DIR(request) == _IOC_NONE) throwContract(info.Env(), "this ioctl takes an integer");
    do rc = ioctl(fd, request, bytes.data);
    while (rc < 0 && errno == EINTR);
  }
  if (rc < 0) {
    int err = errno;
    char call[64];
    snprintf(call, sizeof call, "%s 0x%lx", what, static_cast<unsigned long>(request));
    throwErrno(info.Env(), call, err);
  }
  return Napi::Number::New(info.Env(), rc);
}

// kvmIoctl(request, argument): a system ioctl on /dev/kvm.
static Napi::Value kvmIoctl(const Napi::CallbackInfo& info) {
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } kvm{openKvm(info.Env())};
  return doIoctl(info, 0, kvm.fd, 4096, "KVM system ioctl");
}

// machineCreate() → handle
static Napi::Value machineCreate(const Napi::CallbackInfo& info) {
  auto machine = std::make_shared<Machine>();
  machine->kvmFd = openKvm(info.Env());
  do machine->vmFd = ioctl(machine->kvmFd, KVM_CREATE_VM, 0);
  while (machine->vmFd < 0 && errno == EINTR);
  if (machine->vmFd < 0) throwErrno(info.Env(), "KVM_CREATE_VM", errno);
  int xsave = ioctl(machine->vmFd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  if (xsave > 4096) machine->xsaveSize = static_cast<size_t>(xsave);
  machine->wakeFd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  machine->epollFd = epoll_create1(EPOLL_CLOEXEC);
  if (machine->wakeFd < 0 || machine->epollFd < 0) throwErrno(info.Env(), "epoll_create1", errno);
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = machine->wakeFd;
  if (epoll_ctl(machine->epollFd, EPOLL_CTL_ADD, machine->wakeFd, &event) < 0)
    throwErrno(info.Env(), "epoll_ctl", errno);
  return Napi::Number::New(info.Env(), machines().add(std::move(machine)));
}

// machineXsaveSize(machine) → bytes of KVM_GET_XSAVE2's and KVM_SET_XSAVE's argument
static Napi::Value machineXsaveSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(machineArg(info)->xsaveSize));
}

// machineIoctl(machine, request, argument): on the VM.
static Napi::Value machineIoctl(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  return doIoctl(info, 1, machine->vmFd, machine->xsaveSize, "KVM VM ioctl");
}

// machineEnableCap(machine, capability, argument0)
static void machineEnableCap(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  kvm_enable_cap cap = {};
  cap.cap = static_cast<uint32_t>(integerArg(info, 1, 0, UINT32_MAX));
  cap.args[0] = static_cast<uint64_t>(integerArg(info, 2, 0, UINT32_MAX));
  if (ioctl(machine->vmFd, KVM_ENABLE_CAP, &cap) < 0) throwErrno(info.Env(), "KVM_ENABLE_CAP", errno);
}

// machineTrapMsrWrites(machine, msr): writes of one MSR leave the guest as KVM_EXIT_X86_WRMSR, all else is allowed.
static void machineTrapMsrWrites(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  uint8_t denied = 0;
  kvm_msr_filter filter = {};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  filter.ranges[0].flags = KVM_MSR_FILTER_WRITE;
  filter.ranges[0].nmsrs = 1;
  filter.ranges[0].base = static_cast<uint32_t>(integerArg(info, 1, 0, UINT32_MAX));
  filter.ranges[0].bitmap = &denied;
  if (ioctl(machine->vmFd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
    throwErrno(info.Env(), "KVM_X86_SET_MSR_FILTER", errno);
}

// machineSetSlot(machine, slot, gpa, memory, logDirty): puts a whole memory into a slot, or changes its dirty logging.
static void machineSetSlot(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  auto slot = static_cast<uint32_t>(integerArg(info, 1, 0, 32000));
  auto gpa = static_cast<uint64_t>(integerArg(info, 2, 0, int64_t{1} << 46));
  auto memory = memoryArg(info, 3);
  kvm_userspace_memory_region region = {};
  region.slot = slot;
  region.flags = info[4].ToBoolean() ? KVM_MEM_LOG_DIRTY_PAGES : 0;
  region.guest_phys_addr = gpa;
  region.memory_size = memory->size;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory->base);
  std::lock_guard<std::mutex> lock(machine->slotsMutex);
  if (ioctl(machine->vmFd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
    throwErrno(info.Env(), "KVM_SET_USER_MEMORY_REGION", errno);
  for (auto& known : machine->slots)
    if (known.first.slot == slot) {
      known = {region, memory};
      return;
    }
  machine->slots.emplace_back(region, memory);
}

// machineReadDirtyLog(machine, slot, bitmap): fetches and clears the slot's dirty log; one bit a page, little-endian.
static void machineReadDirtyLog(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  auto slot = static_cast<uint32_t>(integerArg(info, 1, 0, 32000));
  auto bitmap = bytesArg(info, 2);
  std::lock_guard<std::mutex> lock(machine->slotsMutex);
  for (auto& known : machine->slots) {
    if (known.first.slot != slot) continue;
    // KVM writes whole 64-bit words (virt/kvm/kvm_main.c, kvm_dirty_bitmap_bytes).
    if (bitmap.length < (known.first.memory_size / 4096 + 63) / 64 * 8)
      throwContract(info.Env(), "a dirty bitmap is too short");
    kvm_dirty_log log = {};
    log.slot = slot;
    log.dirty_bitmap = bitmap.data;
    if (ioctl(machine->vmFd, KVM_GET_DIRTY_LOG, &log) < 0) throwErrno(info.Env(), "KVM_GET_DIRTY_LOG", errno);
    return;
  }
  throwContract(info.Env(), "no such memory slot");
}

// machineAddVcpu(machine) → index
static Napi::Value machineAddVcpu(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  auto vcpu = std::make_unique<Vcpu>();
  vcpu->machine = machine.get();
  vcpu->index = static_cast<uint32_t>(machine->vcpus.size());
  vcpu->fd = ioctl(machine->vmFd, KVM_CREATE_VCPU, vcpu->index);
  if (vcpu->fd < 0) throwErrno(info.Env(), "KVM_CREATE_VCPU", errno);
  int size = ioctl(machine->kvmFd, KVM_GET_VCPU_MMAP_SIZE, 0);
  void* run = size < 0 ? MAP_FAILED : mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
  if (run == MAP_FAILED) {
    int err = errno;
    close(vcpu->fd);
    throwErrno(info.Env(), "mmap of a vCPU", err);
  }
  vcpu->run = static_cast<kvm_run*>(run);
  vcpu->runSize = size;
  machine->vcpus.push_back(std::move(vcpu));
  return Napi::Number::New(info.Env(), machine->vcpus.size() - 1);
}

static Vcpu& vcpuArg(const Napi::CallbackInfo& info, Machine& machine) {
  auto index = static_cast<size_t>(integerArg(info, 1, 0, 4096));
  if (index >= machine.vcpus.size()) throwContract(info.Env(), "no such vCPU");
  return *machine.vcpus[index];
}

// vcpuIoctl(machine, vcpu, request, argument): on a vCPU that its thread does not run.
static Napi::Value vcpuIoctl(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  Vcpu& vcpu = vcpuArg(info, *machine);
  if (vcpu.phase.load() == Vcpu::kRunning) throwContract(info.Env(), "this vCPU is running");
  return doIoctl(info, 2, vcpu.fd, machine->xsaveSize, "KVM vCPU ioctl");
}

// The Worker that has the device loop ends: nobody would answer exits any more. Runs in that environment's clean-up.
static void onDeviceThreadEnd(void* data) {
  auto* held = static_cast<std::shared_ptr<Machine>*>(data);
  (*held)->dead = true;
  (*held)->stopThreads();
  (*held)->exitPage = nullptr;
  delete held;
}

// machineAttach(machine, exitPage): makes the calling thread the device thread. The exit page (kExitPageSize bytes)
// must stay referenced for as long as the machine is used.
static void machineAttach(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  if (machine->attached) throwContract(info.Env(), "this machine has a device thread already");
  auto page = bytesArg(info, 1);
  if (page.length < kExitPageSize) throwContract(info.Env(), "the exit page is too short");
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(info.Env(), &loop) != napi_ok) throwContract(info.Env(), "this thread has no event loop");
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = uv_backend_fd(loop);
  if (epoll_ctl(machine->epollFd, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
    throwErrno(info.Env(), "epoll_ctl", errno);
  machine->exitPage = page.data;
  machine->attached = true;
  napi_add_env_cleanup_hook(info.Env(), onDeviceThreadEnd, new std::shared_ptr<Machine>(machine));
}

// machineStart(machine): starts the vCPU threads, parked. Device thread.
static void machineStart(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  for (auto& vcpu : machine->vcpus) {
    if (vcpu->started) continue;
    int err = startVcpuThread(*vcpu);
    if (err != 0) throwErrno(info.Env(), "pthread_create", err);
  }
}

// machineRequestPause(machine): wait() will return kEventParked once every vCPU is parked. Device thread.
static void machineRequestPause(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  {
    std::lock_guard<std::mutex> lock(machine->mutex);
    machine->pauseWanted = true;
    machine->parkedReported = false;
  }
  machine->kickAll();
}

// machineResume(machine). Device thread.
static void machineResume(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  std::lock_guard<std::mutex> lock(machine->mutex);
  machine->pauseWanted = false;
  machine->parkedReported = true;
  machine->unpaused.notify_all();
}

// machineKill(machine): wait() returns kEventDead from now on. Any thread.
static void machineKill(const Napi::CallbackInfo& info) {
  auto machine = machines().find(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (!machine) return;
  machine->dead = true;
  machine->wake();
}

// machineClose(machine): ends the vCPU threads and forgets the handle; the VM goes with its last user.
static void machineClose(const Napi::CallbackInfo& info) {
  auto machine = machines().remove(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (!machine) return;
  machine->dead = true;
  machine->wake();
  machine->stopThreads();
}

static uint64_t nowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

static void setWord(Machine& machine, size_t word, uint64_t value) {
  reinterpret_cast<uint32_t*>(machine.exitPage)[word] = static_cast<uint32_t>(value);
}

// Clips what a kvm_run says to what it can be, so that no field of it is trusted for a copy.
static size_t pioBytes(const Vcpu& vcpu) {
  const auto& io = vcpu.run->io;
  if (io.data_offset > vcpu.runSize) return 0;
  size_t bytes = static_cast<size_t>(io.size) * io.count;
  size_t room = vcpu.runSize - io.data_offset;
  return bytes <= room && bytes <= kExitDataSize ? bytes : 0;
}

static void describeExit(Machine& machine, Vcpu& vcpu) {
  kvm_run& run = *vcpu.run;
  uint8_t* data = machine.exitPage + kExitDataOffset;
  setWord(machine, kWordVcpu, vcpu.index);
  setWord(machine, kWordReason, run.exit_reason);
  setWord(machine, kWordError, 0);
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
      setWord(machine, kWordInstructionSize, 0);
      if (run.internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run.emulation_failure.ndata >= 3) {
        size_t size = run.emulation_failure.insn_size <= 15 ? run.emulation_failure.insn_size : 15;
        if (size == 0) size = 15;  // KVM fills the bytes even where it does not know how many it needed
        setWord(machine, kWordInstructionSize, size);
        memcpy(data, run.emulation_failure.insn_bytes, size);
      }
      break;
    case KVM_EXIT_FAIL_ENTRY:
      setWord(machine, kWordDataLow, run.fail_entry.hardware_entry_failure_reason);
      setWord(machine, kWordDataHigh, run.fail_entry.hardware_entry_failure_reason >> 32);
      break;
    default:
      break;
  }
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

// wait(machine, timeoutMs) → WaitEvent. Answers the exit that the last call returned, then blocks until there is
// something to do (timeoutMs < 0: for ever). Device thread, which has no timers or immediates of its own but the one it
// awaits after kEventLoop: only what makes its loop's fd readable ends the wait.
static Napi::Value machineWait(const Napi::CallbackInfo& info) {
  // Not machineArg: the machine may have been closed from the main thread, and then it is dead.
  auto machine = machines().find(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  auto result = [&](WaitEvent event) { return Napi::Number::New(info.Env(), event); };
  if (!machine) return result(kEventDead);
  if (machine->exitPage == nullptr) throwContract(info.Env(), "this thread is not the device thread");
  auto timeoutMs = static_cast<int>(integerArg(info, 1, -1, 3600000));
  answerExit(*machine);
  // The first turn only looks; later ones sleep. A guest that exits without pause must not starve this thread's own
  // event loop, so once a millisecond that is looked at before the exits.
  for (bool mayBlock = false;; mayBlock = true) {
    if (machine->dead) return result(kEventDead);
    if (mayBlock || nowNs() - machine->loopPolledNs < 1000000) {
      std::lock_guard<std::mutex> lock(machine->mutex);
      machine->waiterAsleep = false;
      if (!machine->exits.empty()) {
        uint32_t index = machine->exits.front();
        machine->exits.pop_front();
        machine->answering = static_cast<int>(index);
        describeExit(*machine, *machine->vcpus[index]);
        return result(kEventExit);
      }
      if (!machine->parkedReported && machine->parkedCount == machine->vcpus.size()) {
        machine->parkedReported = true;
        return result(kEventParked);
      }
      machine->waiterAsleep = mayBlock;
    }
    epoll_event events[2];
    int n = epoll_wait(machine->epollFd, events, 2, mayBlock ? timeoutMs : 0);
    if (n < 0 && errno != EINTR) throwErrno(info.Env(), "epoll_wait", errno);
    machine->loopPolledNs = nowNs();
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd != machine->wakeFd) return result(kEventLoop);
      uint64_t count;
      if (read(machine->wakeFd, &count, sizeof count) < 0 && errno != EAGAIN)
        throwErrno(info.Env(), "read of an eventfd", errno);
    }
    if (mayBlock && n == 0) return result(kEventTimeout);
  }
}

void initMachine(Napi::Env env, Napi::Object exports) {
  exports.Set("kvmIoctl", Napi::Function::New(env, kvmIoctl));
  exports.Set("machineCreate", Napi::Function::New(env, machineCreate));
  exports.Set("machineXsaveSize", Napi::Function::New(env, machineXsaveSize));
  exports.Set("machineIoctl", Napi::Function::New(env, machineIoctl));
  exports.Set("machineEnableCap", Napi::Function::New(env, machineEnableCap));
  exports.Set("machineTrapMsrWrites", Napi::Function::New(env, machineTrapMsrWrites));
  exports.Set("machineSetSlot", Napi::Function::New(env, machineSetSlot));
  exports.Set("machineReadDirtyLog", Napi::Function::New(env, machineReadDirtyLog));
  exports.Set("machineAddVcpu", Napi::Function::New(env, machineAddVcpu));
  exports.Set("vcpuIoctl", Napi::Function::New(env, vcpuIoctl));
  exports.Set("machineAttach", Napi::Function::New(env, machineAttach));
  exports.Set("machineStart", Napi::Function::New(env, machineStart));
  exports.Set("machineRequestPause", Napi::Function::New(env, machineRequestPause));
  exports.Set("machineResume", Napi::Function::New(env, machineResume));
  exports.Set("machineKill", Napi::Function::New(env, machineKill));
  exports.Set("machineClose", Napi::Function::New(env, machineClose));
  exports.Set("machineWait", Napi::Function::New(env, machineWait));
}

}  // namespace livesnap
