// The functions of a machine for TypeScript. Those marked "device thread" are called on the thread that has attached,
// the others on any JS thread.
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <system_error>

#include "errors.h"
#include "registry.h"
#include "vcpu_thread.h"

// Of libuv: the fd that is readable when a loop has work. Declared here, since uv.h is not part of Node-API.
extern "C" int uv_backend_fd(const struct uv_loop_s* loop);

namespace livesnap {

static Registry<Machine>& machines() {
  static auto* registry = new Registry<Machine>();
  return *registry;
}

std::shared_ptr<Machine> findMachine(const Napi::CallbackInfo& info) {
  return machines().find(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
}

std::shared_ptr<Machine> machineArg(const Napi::CallbackInfo& info) {
  auto machine = findMachine(info);
  if (!machine) throwGone(info.Env());
  return machine;
}

Machine::~Machine() {
  stopThreads();
  for (auto& vcpu : vcpus) {
    if (vcpu->run != nullptr) munmap(vcpu->run, vcpu->runSize);
    if (vcpu->fd >= 0) close(vcpu->fd);
  }
  for (int fd : irqs) close(fd);
  for (auto& [fd, each] : watched)
    if (each.isNotifier) close(fd);
  for (int fd : {vmFd, kvmFd, wakeFd, readyFd, epollFd})
    if (fd >= 0) close(fd);
}

static int openKvm(Napi::Env env) {
  int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (fd < 0) throwErrno(env, "open /dev/kvm", errno);
  return fd;
}

// The kind of file descriptor of an ioctl. KVM uses some numbers for more than one kind.
enum class Target { kSystem, kVm, kVcpu };

// Ioctls whose argument is a head and a list of entries, where the first word of the head is the count of entries. They
// are identified by _IOC_NR alone: a request number contains the size of its structure, and a structure with a flexible
// array has another size in C++ than in C. For the same reason the sizes here are the kernel's, not sizeof.
struct CountedIoctl {
  Target target;
  unsigned nr;
  size_t headBytes;
  size_t entryBytes;
};
static constexpr CountedIoctl kCountedIoctls[] = {
    {Target::kSystem, 0x02, 4, 4},   // GET_MSR_INDEX_LIST
    {Target::kSystem, 0x05, 8, 40},  // GET_SUPPORTED_CPUID
    {Target::kSystem, 0x09, 8, 40},  // GET_EMULATED_CPUID
    {Target::kSystem, 0x0a, 4, 4},   // GET_MSR_FEATURE_INDEX_LIST
    {Target::kSystem, 0x88, 8, 16},  // GET_MSRS of features
    {Target::kVm, 0x6a, 8, 48},      // SET_GSI_ROUTING
    {Target::kVcpu, 0x88, 8, 16},    // GET_MSRS
    {Target::kVcpu, 0x89, 8, 16},    // SET_MSRS
    {Target::kVcpu, 0x90, 8, 40},    // SET_CPUID2
    {Target::kVcpu, 0x91, 8, 40},    // GET_CPUID2
};

// Ioctls that TypeScript may not make: the kernel follows a pointer in the argument, or its size has another rule.
struct RefusedIoctl {
  Target target;
  unsigned nr;
};
static constexpr RefusedIoctl kRefusedIoctls[] = {
    {Target::kSystem, 0xc1},  // GET_SUPPORTED_HV_CPUID
    {Target::kSystem, 0xe2},  // GET_DEVICE_ATTR
    {Target::kVm, 0x42},      // GET_DIRTY_LOG
    {Target::kVm, 0x46},      // SET_USER_MEMORY_REGION
    {Target::kVm, 0x49},      // SET_USER_MEMORY_REGION2
    {Target::kVm, 0x7a},      // XEN_HVM_CONFIG
    {Target::kVm, 0xb2},      // SET_PMU_EVENT_FILTER
    {Target::kVm, 0xba},      // MEMORY_ENCRYPT_OP
    {Target::kVm, 0xc0},      // CLEAR_DIRTY_LOG
    {Target::kVm, 0xc6},      // X86_SET_MSR_FILTER
    {Target::kVm, 0xe1},      // SET_DEVICE_ATTR
    {Target::kVm, 0xe2},      // GET_DEVICE_ATTR
    {Target::kVcpu, 0x8a},    // SET_CPUID
    {Target::kVcpu, 0x8b},    // SET_SIGNAL_MASK
    {Target::kVcpu, 0xab},    // GET_ONE_REG
    {Target::kVcpu, 0xac},    // SET_ONE_REG
    {Target::kVcpu, 0xb0},    // GET_REG_LIST
    {Target::kVcpu, 0xbe},    // GET_NESTED_STATE
    {Target::kVcpu, 0xbf},    // SET_NESTED_STATE
    {Target::kVcpu, 0xc1},    // GET_SUPPORTED_HV_CPUID
    {Target::kVcpu, 0xe1},    // SET_DEVICE_ATTR
    {Target::kVcpu, 0xe2},    // GET_DEVICE_ATTR
};

// The size in bytes of the argument of an ioctl; SIZE_MAX for one that TypeScript may not make.
static size_t ioctlSize(Target target, uint64_t request, const Bytes& bytes, size_t xsaveSize) {
  size_t sizeInNumber = _IOC_SIZE(request);
  auto nr = static_cast<unsigned>(_IOC_NR(request));
  for (const auto& refused : kRefusedIoctls)
    if (refused.target == target && refused.nr == nr) return SIZE_MAX;
  for (const auto& counted : kCountedIoctls) {
    if (counted.target != target || counted.nr != nr) continue;
    uint32_t count = 0;
    if (bytes.length >= sizeof count) memcpy(&count, bytes.data, sizeof count);
    return std::max(sizeInNumber, counted.headBytes + size_t{count} * counted.entryBytes);
  }
  // GET_XSAVE, SET_XSAVE, GET_XSAVE2. KVM_CAP_XSAVE2 gives the size of the last two.
  if (target == Target::kVcpu && (nr == 0xa4 || nr == 0xa5 || nr == 0xcf)) return std::max(sizeInNumber, xsaveSize);
  return sizeInNumber;
}

struct Ioctl {
  uint64_t request;
  bool takesBytes;
  uint64_t value;  // the argument, unless it takes bytes
  Bytes bytes;
};

// An ioctl and its argument, which is an integer, or a Uint8Array that is long enough for what the kernel reads and
// writes.
static Ioctl ioctlArg(const Napi::CallbackInfo& info, size_t first, Target target, size_t xsaveSize) {
  Ioctl call = {static_cast<uint64_t>(integerArg(info, first, 0, UINT32_MAX)), !info[first + 1].IsNumber(), 0, {}};
  if (!call.takesBytes) {
    call.value = static_cast<uint64_t>(integerArg(info, first + 1, 0, INT64_MAX >> 10));
    if (_IOC_DIR(call.request) != _IOC_NONE) throwContract(info.Env(), "this ioctl takes bytes");
    return call;
  }
  call.bytes = bytesArg(info, first + 1);
  if (_IOC_DIR(call.request) == _IOC_NONE) throwContract(info.Env(), "this ioctl takes an integer");
  size_t needed = ioctlSize(target, call.request, call.bytes, xsaveSize);
  if (needed == SIZE_MAX) throwContract(info.Env(), "this ioctl is not made from TypeScript");
  if (call.bytes.length < needed) throwContract(info.Env(), "an ioctl's argument is too short");
  return call;
}

[[noreturn]] static void throwIoctl(Napi::Env env, Target target, uint64_t request, int err) {
  const char* name = target == Target::kSystem ? "system" : target == Target::kVm ? "VM" : "vCPU";
  char call[64];
  snprintf(call, sizeof call, "KVM %s ioctl 0x%lx", name, static_cast<unsigned long>(request));
  throwErrno(env, call, err);
}

// Makes an ioctl. Returns its result. Throws SystemError.
static Napi::Value doIoctl(const Napi::CallbackInfo& info, size_t first, int fd, Target target, size_t xsaveSize) {
  Ioctl call = ioctlArg(info, first, target, xsaveSize);
  int rc;
  do rc = call.takesBytes ? ioctl(fd, call.request, call.bytes.data) : ioctl(fd, call.request, call.value);
  while (rc < 0 && errno == EINTR);
  if (rc < 0) throwIoctl(info.Env(), target, call.request, errno);
  return Napi::Number::New(info.Env(), rc);
}

// kvmIoctl(request, argument): a system ioctl on /dev/kvm.
static Napi::Value kvmIoctl(const Napi::CallbackInfo& info) {
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } kvm{openKvm(info.Env())};
  return doIoctl(info, 0, kvm.fd, Target::kSystem, 4096);
}

// How a VM is made: the MSR whose writes exit as KVM_EXIT_X86_WRMSR (-1: none), whether the dirty log may be read without
// clearing it, and ioctls before it has vCPUs.
struct Recipe {
  struct Step {
    uint64_t request;
    bool takesBytes;
    uint64_t value;
    std::vector<uint8_t> bytes;
    bool operator==(const Step& other) const {
      return request == other.request && takesBytes == other.takesBytes && value == other.value && bytes == other.bytes;
    }
  };
  int64_t trappedMsr = -1;
  bool readsLog = false;
  std::vector<Step> steps;
  bool operator==(const Recipe& other) const {
    return trappedMsr == other.trappedMsr && readsLog == other.readsLog && steps == other.steps;
  }
};

// A VM that is made, or why it is not: the errno of `failed`, or else of a step.
struct MadeVm {
  int kvmFd = -1;
  int vmFd = -1;
  bool readsLog = false;
  int err = 0;
  const char* failed = nullptr;
  uint64_t failedRequest = 0;
  void close() {
    for (int fd : {vmFd, kvmFd})
      if (fd >= 0) ::close(fd);
  }
};

// Takes recipes from TypeScript: (trappedMsr, readsLog, request, argument, request, argument, …).
static Recipe recipeArg(const Napi::CallbackInfo& info) {
  Recipe recipe;
  recipe.trappedMsr = integerArg(info, 0, -1, UINT32_MAX);
  recipe.readsLog = info[1].ToBoolean();
  for (size_t i = 2; i < info.Length(); i += 2) {
    Ioctl call = ioctlArg(info, i, Target::kVm, 4096);
    std::vector<uint8_t> bytes(call.bytes.data, call.bytes.data + call.bytes.length);
    recipe.steps.push_back({call.request, call.takesBytes, call.value, std::move(bytes)});
  }
  return recipe;
}

// Lets KVM_GET_DIRTY_LOG leave the log as it is. False: this KVM clears the log when it is read.
static bool enableReadingLog(int vmFd) {
  int options = ioctl(vmFd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
  if (options <= 0 || (options & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) == 0) return false;
  kvm_enable_cap enable = {};
  enable.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
  // Without INITIALLY_SET, which would make the first harvest return every page.
  enable.args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
  return ioctl(vmFd, KVM_ENABLE_CAP, &enable) == 0;
}

// Any thread.
static MadeVm makeVm(Recipe recipe) {
  MadeVm vm;
  auto fail = [&vm](const char* call, uint64_t request) {
    vm.err = errno;
    vm.failed = call;
    vm.failedRequest = request;
    return vm;
  };
  vm.kvmFd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (vm.kvmFd < 0) return fail("open /dev/kvm", 0);
  do vm.vmFd = ioctl(vm.kvmFd, KVM_CREATE_VM, 0);
  while (vm.vmFd < 0 && errno == EINTR);
  if (vm.vmFd < 0) return fail("KVM_CREATE_VM", 0);
  for (auto& step : recipe.steps) {
    int rc;
    do rc = step.takesBytes ? ioctl(vm.vmFd, step.request, step.bytes.data()) : ioctl(vm.vmFd, step.request, step.value);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) return fail(nullptr, step.request);
  }
  if (recipe.trappedMsr >= 0) {
    uint8_t denied = 0;
    kvm_msr_filter filter = {};
    filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
    filter.ranges[0].flags = KVM_MSR_FILTER_WRITE;
    filter.ranges[0].nmsrs = 1;
    filter.ranges[0].base = static_cast<uint32_t>(recipe.trappedMsr);
    filter.ranges[0].bitmap = &denied;
    if (ioctl(vm.vmFd, KVM_X86_SET_MSR_FILTER, &filter) < 0) return fail("KVM_X86_SET_MSR_FILTER", 0);
  }
  vm.readsLog = recipe.readsLog && enableReadingLog(vm.vmFd);
  return vm;
}

// The VM that a thread of its own makes for the next machineCreate with the same recipe. Never destroyed: the process may
// exit while it is made.
struct Prepared {
  std::mutex mutex;
  Recipe recipe;
  std::future<MadeVm> vm;
};
static Prepared& prepared() {
  static auto* only = new Prepared();
  return *only;
}

// machinePrepare(recipe…): starts to make a VM. Does nothing if there is one already. Any thread.
static void machinePrepare(const Napi::CallbackInfo& info) {
  Recipe recipe = recipeArg(info);
  auto& ahead = prepared();
  std::lock_guard<std::mutex> lock(ahead.mutex);
  if (ahead.vm.valid()) return;
  try {
    ahead.vm = std::async(std::launch::async, makeVm, recipe);
    ahead.recipe = std::move(recipe);
  } catch (const std::system_error&) {
    // No thread: machineCreate makes the VM.
  }
}

// The prepared VM if it is made by this recipe; waits for it.
static MadeVm takeVm(Recipe recipe) {
  auto& ahead = prepared();
  std::unique_lock<std::mutex> lock(ahead.mutex);
  if (ahead.vm.valid() && ahead.recipe == recipe) {
    auto future = std::move(ahead.vm);
    lock.unlock();
    MadeVm vm = future.get();
    if (vm.err == 0) return vm;
    vm.close();
  } else {
    lock.unlock();
  }
  return makeVm(std::move(recipe));
}

// machineCreate(recipe…) → handle
static Napi::Value machineCreate(const Napi::CallbackInfo& info) {
  auto machine = std::make_shared<Machine>();
  MadeVm vm = takeVm(recipeArg(info));
  machine->kvmFd = vm.kvmFd;
  machine->vmFd = vm.vmFd;
  machine->readsLog = vm.readsLog;
  if (vm.failed != nullptr) throwErrno(info.Env(), vm.failed, vm.err);
  if (vm.err != 0) throwIoctl(info.Env(), Target::kVm, vm.failedRequest, vm.err);
  int xsave = ioctl(machine->vmFd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  if (xsave > 4096) machine->xsaveSize = static_cast<size_t>(xsave);
  machine->wakeFd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  machine->epollFd = epoll_create1(EPOLL_CLOEXEC);
  machine->readyFd = epoll_create1(EPOLL_CLOEXEC);
  if (machine->wakeFd < 0 || machine->epollFd < 0 || machine->readyFd < 0)
    throwErrno(info.Env(), "epoll_create1", errno);
  for (int fd : {machine->wakeFd, machine->readyFd}) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(machine->epollFd, EPOLL_CTL_ADD, fd, &event) < 0) throwErrno(info.Env(), "epoll_ctl", errno);
  }
  return Napi::Number::New(info.Env(), machines().add(std::move(machine)));
}

// machineXsaveSize(machine) → size in bytes of the argument of KVM_GET_XSAVE2 and KVM_SET_XSAVE
static Napi::Value machineXsaveSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(machineArg(info)->xsaveSize));
}

// machineIoctl(machine, request, argument): an ioctl on the VM.
static Napi::Value machineIoctl(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  return doIoctl(info, 1, machine->vmFd, Target::kVm, machine->xsaveSize);
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

// The slot of a call (machine, slot, bitmap) that reads its dirty log into the bitmap: one bit per page, little-endian.
// The caller holds slotsMutex.
static kvm_dirty_log getDirtyLog(const Napi::CallbackInfo& info, const Machine& machine, uint64_t* pages) {
  auto slot = static_cast<uint32_t>(integerArg(info, 1, 0, 32000));
  auto bitmap = bytesArg(info, 2);
  for (auto& known : machine.slots) {
    if (known.first.slot != slot) continue;
    *pages = known.first.memory_size / 4096;
    // KVM writes whole 64-bit words (virt/kvm/kvm_main.c, kvm_dirty_bitmap_bytes).
    if (bitmap.length < (*pages + 63) / 64 * 8) throwContract(info.Env(), "a dirty bitmap is too short");
    kvm_dirty_log log = {};
    log.slot = slot;
    log.dirty_bitmap = bitmap.data;
    if (ioctl(machine.vmFd, KVM_GET_DIRTY_LOG, &log) < 0) throwErrno(info.Env(), "KVM_GET_DIRTY_LOG", errno);
    return log;
  }
  throwContract(info.Env(), "no such memory slot");
}

// machineTakeDirtyLog(machine, slot, bitmap): fetches the slot's dirty log, and clears what it fetched. A page that the
// guest writes between the two stays in the log, because only fetched bits are cleared.
static void machineTakeDirtyLog(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  std::lock_guard<std::mutex> lock(machine->slotsMutex);
  uint64_t pages = 0;
  kvm_dirty_log log = getDirtyLog(info, *machine, &pages);
  if (!machine->readsLog) return;
  // KVM takes ranges that begin at a multiple of 64 pages and end at another or at the slot's end, of 32-bit lengths.
  constexpr uint64_t kMostPages = uint64_t{1} << 31;
  auto* words = static_cast<const uint64_t*>(log.dirty_bitmap);
  for (uint64_t first = 0; first < pages; first += kMostPages) {
    uint64_t count = std::min(pages - first, kMostPages);
    auto* from = words + first / 64;
    if (std::all_of(from, from + (count + 63) / 64, [](uint64_t word) { return word == 0; })) continue;
    kvm_clear_dirty_log clear = {};
    clear.slot = log.slot;
    clear.num_pages = static_cast<uint32_t>(count);
    clear.first_page = first;
    clear.dirty_bitmap = const_cast<uint64_t*>(from);
    if (ioctl(machine->vmFd, KVM_CLEAR_DIRTY_LOG, &clear) < 0) throwErrno(info.Env(), "KVM_CLEAR_DIRTY_LOG", errno);
  }
}

// machineReadDirtyLog(machine, slot, bitmap) → whether it did: reads the slot's dirty log and leaves it as it is. False:
// this KVM clears a log that is read.
static Napi::Value machineReadDirtyLog(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  if (!machine->readsLog) return Napi::Boolean::New(info.Env(), false);
  std::lock_guard<std::mutex> lock(machine->slotsMutex);
  uint64_t pages = 0;
  getDirtyLog(info, *machine, &pages);
  return Napi::Boolean::New(info.Env(), true);
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

// vcpuIoctl(machine, vcpu, request, argument): an ioctl on a vCPU that is parked or in an exit.
static Napi::Value vcpuIoctl(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  Vcpu& vcpu = vcpuArg(info, *machine);
  if (vcpu.phase.load() == Vcpu::kRunning) throwContract(info.Env(), "this vCPU is running");
  return doIoctl(info, 2, vcpu.fd, Target::kVcpu, machine->xsaveSize);
}

// Runs in the clean-up of the device thread's environment: from now on nobody answers exits.
static void onDeviceThreadEnd(void* data) {
  auto* held = static_cast<std::shared_ptr<Machine>*>(data);
  (*held)->dead = true;
  (*held)->stopThreads();
  (*held)->exitPage = nullptr;
  delete held;
}

// machineAttach(machine, exitPage): makes the calling thread the device thread. The exit page has kExitPageSize bytes.
// The caller keeps it referenced while the machine is used.
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

// machineRequestPause(machine): asks every vCPU to park; then machineWait returns kEventParked. Device thread.
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

// machineSetPostedPort(machine, port): posts bytes that are written to this port (machine.h); -1: none. Device thread.
static void machineSetPostedPort(const Napi::CallbackInfo& info) {
  auto machine = machineArg(info);
  machine->postedPort = static_cast<int>(integerArg(info, 1, -1, 0xffff));
}

// machineKill(machine): from now on machineWait returns kEventDead. Any thread.
static void machineKill(const Napi::CallbackInfo& info) {
  auto machine = findMachine(info);
  if (!machine) return;
  machine->dead = true;
  machine->wake();
}

// machineClose(machine): ends the vCPU threads and drops the handle. The VM is freed with its last user.
static void machineClose(const Napi::CallbackInfo& info) {
  auto machine = machines().remove(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (!machine) return;
  machine->dead = true;
  machine->wake();
  machine->stopThreads();
}

void initMachine(Napi::Env env, Napi::Object exports) {
  exports.Set("kvmIoctl", Napi::Function::New(env, kvmIoctl));
  exports.Set("machineCreate", Napi::Function::New(env, machineCreate));
  exports.Set("machineXsaveSize", Napi::Function::New(env, machineXsaveSize));
  exports.Set("machineIoctl", Napi::Function::New(env, machineIoctl));
  exports.Set("machinePrepare", Napi::Function::New(env, machinePrepare));
  exports.Set("machineSetSlot", Napi::Function::New(env, machineSetSlot));
  exports.Set("machineTakeDirtyLog", Napi::Function::New(env, machineTakeDirtyLog));
  exports.Set("machineReadDirtyLog", Napi::Function::New(env, machineReadDirtyLog));
  exports.Set("machineAddVcpu", Napi::Function::New(env, machineAddVcpu));
  exports.Set("vcpuIoctl", Napi::Function::New(env, vcpuIoctl));
  exports.Set("machineAttach", Napi::Function::New(env, machineAttach));
  exports.Set("machineStart", Napi::Function::New(env, machineStart));
  exports.Set("machineRequestPause", Napi::Function::New(env, machineRequestPause));
  exports.Set("machineResume", Napi::Function::New(env, machineResume));
  exports.Set("machineSetPostedPort", Napi::Function::New(env, machineSetPostedPort));
  exports.Set("machineKill", Napi::Function::New(env, machineKill));
  exports.Set("machineClose", Napi::Function::New(env, machineClose));
}

}  // namespace livesnap
