// Opens and makes taps, also in another network namespace.
//
// Invariants:
// - Another namespace is entered by a thread of its own, which ends with the call.
// - A tap that is made here is removed with its descriptor, so nothing is left behind, however the process ends.
// - A tap that exists keeps its addresses and flags.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "errors.h"
#include "net_port.h"

namespace livesnap {

static constexpr int kHeader = 12;

struct Request {
  std::string name, netns;  // netns: a path; empty: this process's namespace
  bool isNew = false;
  std::string address;  // of a new one; empty: none
  int prefix = 0;
};

struct Result {
  const char* step = nullptr;  // that failed
  int err = 0;
  int fd = -1;
  bool isUp = false;
};

// A descriptor that is closed at the end.
struct Scoped {
  int fd;
  ~Scoped() {
    if (fd >= 0) close(fd);
  }
};

// IPv4 or IPv6, as bytes for comparison.
static bool sameAddress(const sockaddr* found, const Request& request) {
  if (found == nullptr) return false;
  uint8_t bytes[16];
  if (found->sa_family == AF_INET && inet_pton(AF_INET, request.address.c_str(), bytes) == 1)
    return memcmp(bytes, &reinterpret_cast<const sockaddr_in*>(found)->sin_addr, 4) == 0;
  if (found->sa_family == AF_INET6 && inet_pton(AF_INET6, request.address.c_str(), bytes) == 1)
    return memcmp(bytes, &reinterpret_cast<const sockaddr_in6*>(found)->sin6_addr, 16) == 0;
  return false;
}

static int checkUnused(const Request& request) {
  ifaddrs* list;
  if (getifaddrs(&list) < 0) return errno;
  int err = 0;
  for (ifaddrs* each = list; each != nullptr; each = each->ifa_next)
    if (sameAddress(each->ifa_addr, request)) err = EADDRINUSE;
  freeifaddrs(list);
  return err;
}

// struct in6_ifreq of linux/ipv6.h, which cannot be included beside netinet/in.h everywhere.
struct Inet6Request {
  in6_addr address;
  uint32_t prefix;
  int index;
};

static int setAddress(const Request& request) {
  ifreq asked = {};
  request.name.copy(asked.ifr_name, IFNAMSIZ - 1);
  if (request.address.find(':') != std::string::npos) {
    Scoped socket6 = {socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    Inet6Request asked6 = {};
    asked6.prefix = static_cast<uint32_t>(request.prefix);
    asked6.index = static_cast<int>(if_nametoindex(request.name.c_str()));
    if (inet_pton(AF_INET6, request.address.c_str(), &asked6.address) != 1) return EINVAL;
    return socket6.fd < 0 || ioctl(socket6.fd, SIOCSIFADDR, &asked6) < 0 ? errno : 0;
  }
  Scoped socket4 = {socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (socket4.fd < 0) return errno;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  if (inet_pton(AF_INET, request.address.c_str(), &address.sin_addr) != 1) return EINVAL;
  memcpy(&asked.ifr_addr, &address, sizeof address);
  if (ioctl(socket4.fd, SIOCSIFADDR, &asked) < 0) return errno;
  address.sin_addr.s_addr = request.prefix == 0 ? 0 : htonl(~uint32_t{0} << (32 - request.prefix));
  memcpy(&asked.ifr_netmask, &address, sizeof address);
  return ioctl(socket4.fd, SIOCSIFNETMASK, &asked) < 0 ? errno : 0;
}

static Result openHere(const Request& request) {
  auto failed = [](const char* step, int err) {
    Result result;
    result.step = step;
    result.err = err;
    return result;
  };
  bool exists = if_nametoindex(request.name.c_str()) != 0;
  // TUNSETIFF makes a tap that does not exist, and takes one that does.
  if (!exists && !request.isNew) return failed("find", ENODEV);
  if (exists && request.isNew) return failed("create", EEXIST);
  if (!request.address.empty())
    if (int err = checkUnused(request)) return failed("address", err);
  Scoped tap = {open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)};
  if (tap.fd < 0) return failed("open", errno);
  ifreq asked = {};
  request.name.copy(asked.ifr_name, IFNAMSIZ - 1);
  asked.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(tap.fd, TUNSETIFF, &asked) < 0) return failed(request.isNew ? "create" : "attach", errno);
  int header = kHeader;
  if (ioctl(tap.fd, TUNSETVNETHDRSZ, &header) < 0) return failed("TUNSETVNETHDRSZ", errno);
  // Whoever had the tap before may have left others.
  if (ioctl(tap.fd, TUNSETOFFLOAD, 0UL) < 0) return failed("TUNSETOFFLOAD", errno);
  if (!request.address.empty())
    if (int err = setAddress(request)) return failed("address", err);
  Scoped any = {socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (any.fd < 0 || ioctl(any.fd, SIOCGIFFLAGS, &asked) < 0) return failed("flags", errno);
  if (request.isNew) {
    asked.ifr_flags |= IFF_UP;
    if (ioctl(any.fd, SIOCSIFFLAGS, &asked) < 0) return failed("flags", errno);
  }
  Result result;
  result.isUp = (asked.ifr_flags & IFF_UP) != 0;
  result.fd = tap.fd;
  tap.fd = -1;
  return result;
}

static Result openThere(const Request& request) {
  Result result;
  Scoped netns = {open(request.netns.c_str(), O_RDONLY | O_CLOEXEC)};
  if (netns.fd < 0 || setns(netns.fd, CLONE_NEWNET) < 0) {
    result.step = netns.fd < 0 ? "netns" : "setns";
    result.err = errno;
    return result;
  }
  return openHere(request);
}

static std::string textArg(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsString()) throwContract(info.Env(), "an argument is no string");
  return info[index].As<Napi::String>().Utf8Value();
}

// tapOpen(name, netns, isNew, address, prefix) → [fd, isUp]. Fails with the step as the name of the system call.
static Napi::Value tapOpen(const Napi::CallbackInfo& info) {
  Request request;
  request.name = textArg(info, 0);
  request.netns = textArg(info, 1);
  request.isNew = info[2].ToBoolean();
  request.address = textArg(info, 3);
  request.prefix = static_cast<int>(integerArg(info, 4, 0, 128));
  if (request.name.empty() || request.name.size() >= IFNAMSIZ) throwContract(info.Env(), "no name of an interface");
  Result result;
  if (request.netns.empty()) {
    result = openHere(request);
  } else {
    std::thread thread([&] { result = openThere(request); });
    thread.join();
  }
  if (result.step != nullptr) throwErrno(info.Env(), result.step, result.err);
  auto pair = Napi::Array::New(info.Env(), 2);
  pair.Set(0u, Napi::Number::New(info.Env(), result.fd));
  pair.Set(1u, Napi::Boolean::New(info.Env(), result.isUp));
  return pair;
}

void initTap(Napi::Env env, Napi::Object exports) { exports.Set("tapOpen", Napi::Function::New(env, tapOpen)); }

}  // namespace livesnap
