#include "net_port.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "errors.h"
#include "memory.h"
#include "registry.h"

namespace livesnap {

// struct virtio_net_hdr_v1 (virtio 1.2, section 5.1.6), little-endian as this machine. linux/virtio_net.h is no C++.
struct Header {
  uint8_t flags, gsoType;
  uint16_t headerLength, gsoSize, checksumStart, checksumOffset, numBuffers;
};
static constexpr size_t kHeader = sizeof(Header);
static_assert(kHeader == 12, "virtio_net_hdr_v1");
static constexpr size_t kNumBuffersAt = 10;
static constexpr uint8_t kNeedsChecksum = 1;  // VIRTIO_NET_HDR_F_NEEDS_CSUM
static constexpr size_t kLengthField = 4;  // of a frame on a stream
static constexpr size_t kLeastFrame = 14;  // an Ethernet header
static constexpr size_t kMaxFrame = 65535 + 18;
static constexpr size_t kMaxBytes = kHeader + kMaxFrame;

// What a call says of a frame. Mirrored in src/native/net.ts.
enum Outcome : int { kNothing = 0, kSent = 1, kSentInPart = 2, kGone = -1, kDropped = -2 };

struct NetPort {
  int fd = -1;
  bool isStream = false;
  // A tap: the frame, header included, that did not fit.
  std::vector<uint8_t> held;
  size_t heldLength = 0;
  // A stream: what was read and is not consumed, and what the socket did not take.
  std::vector<uint8_t> in, out;
  size_t inStart = 0, inEnd = 0, outStart = 0, outEnd = 0;
  bool isBroken = false;
  ~NetPort() {
    if (fd >= 0) close(fd);
  }
};

static Registry<NetPort>& ports() {
  static auto* registry = new Registry<NetPort>();
  return *registry;
}

static std::shared_ptr<NetPort> portArg(const Napi::CallbackInfo& info) {
  auto port = ports().find(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (!port) throwGone(info.Env());
  return port;
}

// Ranges of guest memory, in their order. They hold their memories.
struct Ranges {
  std::vector<iovec> parts;
  std::vector<uint16_t> chains;  // the number of the chain that each belongs to
  std::vector<std::shared_ptr<Memory>> memories;
  size_t bytes = 0;
};

// Arguments `index` and `index + 1`: a Float64Array of memory, offset, length and chain, and how many of these it has.
static Ranges rangesArg(const Napi::CallbackInfo& info, size_t index) {
  auto [data, length] = elementsArg(info, index, napi_float64_array, "ranges are not a Float64Array");
  auto count = static_cast<size_t>(integerArg(info, index + 1, 0, static_cast<int64_t>(length / 4)));
  const auto* values = static_cast<const double*>(data);
  RangeReader reader(info.Env());
  Ranges ranges;
  ranges.parts.reserve(count + 1);
  ranges.chains.reserve(count);
  for (size_t i = 0; i < count; i++, values += 4) {
    auto range = reader.read(values);
    if (!(values[3] >= 0 && values[3] <= UINT16_MAX)) throwContract(info.Env(), "the number of a chain is out of bounds");
    ranges.parts.push_back({range.base, range.length});
    ranges.chains.push_back(static_cast<uint16_t>(values[3]));
    ranges.bytes += range.length;
    if (ranges.memories.empty() || ranges.memories.back() != range.memory)
      ranges.memories.push_back(std::move(range.memory));
  }
  return ranges;
}

// Calls copy(part, done, n) for the pieces of the ranges that hold `length` bytes from their byte `at` on: n bytes at
// `part`, after `done` others.
template <class Copy>
static void forPieces(const Ranges& ranges, size_t at, size_t length, Copy copy) {
  size_t done = 0;
  for (const iovec& part : ranges.parts) {
    if (done == length) return;
    if (at >= part.iov_len) {
      at -= part.iov_len;
      continue;
    }
    size_t n = std::min(length - done, part.iov_len - at);
    copy(static_cast<uint8_t*>(part.iov_base) + at, done, n);
    done += n;
    at = 0;
  }
}

// Copies bytes to the ranges, from their byte `at` on.
static void scatter(const Ranges& ranges, size_t at, const uint8_t* from, size_t length) {
  forPieces(ranges, at, length, [from](uint8_t* part, size_t done, size_t n) { memcpy(part, from + done, n); });
}

// Copies `length` bytes of the ranges, from their byte `at` on. They have as many.
static void gather(const Ranges& ranges, size_t at, uint8_t* to, size_t length) {
  forPieces(ranges, at, length, [to](const uint8_t* part, size_t done, size_t n) { memcpy(to + done, part, n); });
}

// A frame of `length` bytes is in the ranges: its header says how many chains it takes.
static void writeNumBuffers(const Ranges& ranges, size_t length) {
  size_t at = 0, i = 0;
  while (i + 1 < ranges.parts.size() && at + ranges.parts[i].iov_len < length) at += ranges.parts[i++].iov_len;
  unsigned count = ranges.chains[i] + 1u;
  const uint8_t bytes[2] = {static_cast<uint8_t>(count), static_cast<uint8_t>(count >> 8)};
  scatter(ranges, kNumBuffersAt, bytes, sizeof bytes);
}

static bool isGone(int err) {
  return err == EBADFD || err == ENODEV || err == EPIPE || err == ECONNRESET || err == ENOTCONN;
}

static int64_t receiveHeld(NetPort& port, const Ranges& ranges) {
  size_t length = port.heldLength;
  if (length > ranges.bytes) return static_cast<int64_t>(length);
  scatter(ranges, 0, port.held.data(), length);
  writeNumBuffers(ranges, length);
  port.heldLength = 0;
  return static_cast<int64_t>(length);
}

static int64_t receiveFromTap(NetPort& port, Ranges& ranges) {
  if (port.heldLength > 0) return receiveHeld(port, ranges);
  if (port.held.empty()) port.held.resize(kMaxBytes);
  size_t count = std::min(ranges.parts.size(), static_cast<size_t>(IOV_MAX) - 1);
  size_t room = 0;
  for (size_t i = 0; i < count; i++) room += ranges.parts[i].iov_len;
  // What does not fit into the guest's buffers, so that no frame is cut.
  std::vector<iovec> parts(ranges.parts.begin(), ranges.parts.begin() + static_cast<ptrdiff_t>(count));
  if (room < kMaxBytes) parts.push_back({port.held.data() + room, kMaxBytes - room});
  ssize_t n;
  do n = readv(port.fd, parts.data(), static_cast<int>(parts.size()));
  while (n < 0 && errno == EINTR);
  if (n < 0) return errno == EAGAIN ? kNothing : kGone;
  if (n == 0) return kGone;
  auto length = static_cast<size_t>(n);
  if (length < kHeader + kLeastFrame) return kDropped;
  if (length <= room) {
    writeNumBuffers(ranges, length);
    return n;
  }
  gather(ranges, 0, port.held.data(), room);
  port.heldLength = length;
  return receiveHeld(port, ranges);
}

// The length of the next whole frame in `in`; 0 if there is none.
static size_t frameInStream(NetPort& port) {
  size_t have = port.inEnd - port.inStart;
  if (have < kLengthField) return 0;
  const uint8_t* at = port.in.data() + port.inStart;
  size_t length = static_cast<size_t>(at[0]) << 24 | static_cast<size_t>(at[1]) << 16 | static_cast<size_t>(at[2]) << 8 | at[3];
  if (length < kLeastFrame || length > kMaxFrame) {
    // Where the next frame begins is not known any more.
    port.isBroken = true;
    return 0;
  }
  return have - kLengthField >= length ? length : 0;
}

static int64_t receiveFromStream(NetPort& port, const Ranges& ranges) {
  if (port.in.empty()) port.in.resize(2 * kMaxBytes);
  size_t length;
  while ((length = frameInStream(port)) == 0) {
    if (port.isBroken) return kGone;
    if (port.inStart > 0) {
      memmove(port.in.data(), port.in.data() + port.inStart, port.inEnd - port.inStart);
      port.inEnd -= port.inStart;
      port.inStart = 0;
    }
    ssize_t n;
    do n = read(port.fd, port.in.data() + port.inEnd, port.in.size() - port.inEnd);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) return kNothing;
    if (n <= 0) return kGone;
    port.inEnd += static_cast<size_t>(n);
  }
  size_t total = kHeader + length;
  if (total > ranges.bytes) return static_cast<int64_t>(total);
  const uint8_t header[kHeader] = {};
  scatter(ranges, 0, header, kHeader);
  scatter(ranges, kHeader, port.in.data() + port.inStart + kLengthField, length);
  writeNumBuffers(ranges, total);
  port.inStart += kLengthField + length;
  return static_cast<int64_t>(total);
}

// netReceive(port, ranges, count) → the frame's length with its header; 0 or less: an Outcome. A frame that is longer than
// the ranges waits: the next call has more room, or netDropHeld drops it.
static Napi::Value netReceive(const Napi::CallbackInfo& info) {
  auto port = portArg(info);
  Ranges ranges = rangesArg(info, 1);
  if (ranges.parts.empty()) throwContract(info.Env(), "no range to receive into");
  int64_t result = port->isStream ? receiveFromStream(*port, ranges) : receiveFromTap(*port, ranges);
  return Napi::Number::New(info.Env(), static_cast<double>(result));
}

// netDropHeld(port): the frame that waits for room.
static void netDropHeld(const Napi::CallbackInfo& info) {
  auto port = portArg(info);
  port->heldLength = 0;
  if (!port->isStream) return;
  if (size_t length = frameInStream(*port)) port->inStart += kLengthField + length;
}

// Writes what waits. False while the socket does not take all; an error breaks the port.
static bool flushStream(NetPort& port) {
  while (port.outStart < port.outEnd) {
    ssize_t n = send(port.fd, port.out.data() + port.outStart, port.outEnd - port.outStart, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) port.isBroken = true;
    if (n < 0) return false;
    port.outStart += static_cast<size_t>(n);
  }
  port.outStart = port.outEnd = 0;
  return true;
}

static uint16_t checksum(const uint8_t* at, size_t length) {
  uint64_t sum = 0;
  for (; length > 1; at += 2, length -= 2) sum += static_cast<uint32_t>(at[0] << 8 | at[1]);
  if (length > 0) sum += static_cast<uint32_t>(at[0] << 8);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

// Does what VIRTIO_NET_HDR_F_NEEDS_CSUM asks for: the field holds the sum of the pseudo-header. False: it lies outside.
static bool completeChecksum(const Header& header, uint8_t* frame, size_t length) {
  if ((header.flags & kNeedsChecksum) == 0) return true;
  size_t start = header.checksumStart, field = start + header.checksumOffset;
  if (start >= length || field + 2 > length) return false;
  uint16_t sum = checksum(frame + start, length - start);
  if (sum == 0) sum = 0xffff;  // in UDP a 0 says that there is none
  frame[field] = static_cast<uint8_t>(sum >> 8);
  frame[field + 1] = static_cast<uint8_t>(sum);
  return true;
}

static int sendToTap(NetPort& port, const iovec* parts, size_t count) {
  ssize_t n;
  do n = writev(port.fd, parts, static_cast<int>(count));
  while (n < 0 && errno == EINTR);
  if (n >= 0) return kSent;
  if (errno == EAGAIN) return kNothing;
  // The rest is about this frame: a header that the kernel refuses (EINVAL), an interface that is down (EIO).
  return isGone(errno) ? kGone : kDropped;
}

static int sendToStream(NetPort& port, const Ranges& ranges) {
  if (port.isBroken) return kGone;
  if (!flushStream(port)) return port.isBroken ? kGone : kNothing;
  Header header;
  gather(ranges, 0, reinterpret_cast<uint8_t*>(&header), kHeader);
  size_t length = ranges.bytes - kHeader;
  if (port.out.empty()) port.out.resize(kLengthField + kMaxFrame);
  uint8_t* out = port.out.data();
  for (size_t i = 0; i < kLengthField; i++) out[i] = static_cast<uint8_t>(length >> (24 - 8 * i));
  gather(ranges, kHeader, out + kLengthField, length);
  if (!completeChecksum(header, out + kLengthField, length)) return kDropped;
  port.outEnd = kLengthField + length;
  if (flushStream(port)) return kSent;
  return port.isBroken ? kGone : kSentInPart;
}

// netSend(port, ranges, count) → an Outcome. kNothing: nothing was sent, try again when the port is writable.
// kSentInPart: the frame is accepted, and netFlush sends the rest.
static Napi::Value netSend(const Napi::CallbackInfo& info) {
  auto port = portArg(info);
  Ranges ranges = rangesArg(info, 1);
  int result = kDropped;
  if (ranges.bytes >= kHeader + kLeastFrame && ranges.bytes <= kMaxBytes && ranges.parts.size() <= IOV_MAX)
    result = port->isStream ? sendToStream(*port, ranges) : sendToTap(*port, ranges.parts.data(), ranges.parts.size());
  return Napi::Number::New(info.Env(), result);
}

// netSendBytes(port, bytes) → an Outcome. A frame of livesnap's own, with its header.
static Napi::Value netSendBytes(const Napi::CallbackInfo& info) {
  auto port = portArg(info);
  auto bytes = bytesArg(info, 1);
  if (bytes.length < kHeader + kLeastFrame || bytes.length > kMaxBytes) throwContract(info.Env(), "no frame");
  Ranges ranges;
  ranges.parts.push_back({bytes.data, bytes.length});
  ranges.bytes = bytes.length;
  int result = port->isStream ? sendToStream(*port, ranges) : sendToTap(*port, ranges.parts.data(), 1);
  return Napi::Number::New(info.Env(), result);
}

// netFlush(port) → kSent, kNothing or kGone.
static Napi::Value netFlush(const Napi::CallbackInfo& info) {
  auto port = portArg(info);
  bool isDone = flushStream(*port);
  return Napi::Number::New(info.Env(), port->isBroken ? kGone : isDone ? kSent : kNothing);
}

// netIsGone(port): whether the other end is gone. Frames of it may still wait.
static Napi::Value netIsGone(const Napi::CallbackInfo& info) {
  auto port = portArg(info);
  pollfd asked = {port->fd, 0, 0};
  bool isGone = port->isBroken || (poll(&asked, 1, 0) == 1 && (asked.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0);
  return Napi::Boolean::New(info.Env(), isGone);
}

// netSetOffloads(port, flags): TUN_F_* of what the tap may hand over. Nothing on a stream.
static void netSetOffloads(const Napi::CallbackInfo& info) {
  auto port = portArg(info);
  auto flags = static_cast<unsigned long>(integerArg(info, 1, 0, 0xff));
  if (port->isStream) return;
  if (ioctl(port->fd, TUNSETOFFLOAD, flags) < 0 && !isGone(errno)) throwErrno(info.Env(), "TUNSETOFFLOAD", errno);
}

// netPortCreate(fd, isStream) → handle. The descriptor becomes the port's, and does not block.
static Napi::Value netPortCreate(const Napi::CallbackInfo& info) {
  auto port = std::make_shared<NetPort>();
  int fd = static_cast<int>(integerArg(info, 0, 0, INT32_MAX));
  port->isStream = info[1].ToBoolean();
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) throwErrno(info.Env(), "fcntl", errno);
  port->fd = fd;
  return Napi::Number::New(info.Env(), ports().add(std::move(port)));
}

static void netPortClose(const Napi::CallbackInfo& info) {
  ports().remove(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
}

static Napi::Value netPortFd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), portArg(info)->fd);
}

// netSocketPair(isStream) → [fd, fd]: connected Unix sockets, of frames or of a stream.
static Napi::Value netSocketPair(const Napi::CallbackInfo& info) {
  int fds[2];
  int type = info[0].ToBoolean() ? SOCK_STREAM : SOCK_SEQPACKET;
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0) throwErrno(info.Env(), "socketpair", errno);
  auto pair = Napi::Array::New(info.Env(), 2);
  for (uint32_t i = 0; i < 2; i++) pair.Set(i, Napi::Number::New(info.Env(), fds[i]));
  return pair;
}

void initNetPort(Napi::Env env, Napi::Object exports) {
  exports.Set("netReceive", Napi::Function::New(env, netReceive));
  exports.Set("netDropHeld", Napi::Function::New(env, netDropHeld));
  exports.Set("netSend", Napi::Function::New(env, netSend));
  exports.Set("netSendBytes", Napi::Function::New(env, netSendBytes));
  exports.Set("netFlush", Napi::Function::New(env, netFlush));
  exports.Set("netIsGone", Napi::Function::New(env, netIsGone));
  exports.Set("netSetOffloads", Napi::Function::New(env, netSetOffloads));
  exports.Set("netPortCreate", Napi::Function::New(env, netPortCreate));
  exports.Set("netPortClose", Napi::Function::New(env, netPortClose));
  exports.Set("netPortFd", Napi::Function::New(env, netPortFd));
  exports.Set("netSocketPair", Napi::Function::New(env, netSocketPair));
}

}  // namespace livesnap
