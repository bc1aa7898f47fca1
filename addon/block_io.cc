#include "block_io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <system_error>
#include <vector>

#include "errors.h"
#include "files.h"
#include "io_engine.h"
#include "registry.h"

namespace livesnap {

static constexpr size_t kBounceBytes = 256 << 10;
static constexpr int64_t kMaxOffset = int64_t{1} << 53;  // what a number of JavaScript holds exactly
static constexpr int64_t kMaxTransfer = int64_t{1} << 40;

// What an operation does, on an I/O thread. Each returns 0 or an errno value.

static std::vector<iovec> vectorOf(const Operation& operation) {
  std::vector<iovec> vector;
  vector.reserve(operation.ranges.size());
  for (const auto& range : operation.ranges)
    if (range.length > 0) vector.push_back({range.base, range.length});
  return vector;
}

// Skips `done` bytes of the entries from `at` on.
static void advance(std::vector<iovec>& vector, size_t& at, size_t done) {
  while (done > 0) {
    size_t step = std::min(done, vector[at].iov_len);
    vector[at].iov_base = static_cast<uint8_t*>(vector[at].iov_base) + step;
    vector[at].iov_len -= step;
    done -= step;
    if (vector[at].iov_len == 0) at++;
  }
}

static int runRead(const Operation& operation) {
  auto vector = vectorOf(operation);
  off_t offset = operation.offset;
  for (size_t at = 0; at < vector.size();) {
    ssize_t n = preadv(operation.fd, &vector[at], static_cast<int>(std::min<size_t>(vector.size() - at, IOV_MAX)), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) {
      for (; at < vector.size(); at++) memset(vector[at].iov_base, 0, vector[at].iov_len);
      return 0;
    }
    offset += n;
    advance(vector, at, static_cast<size_t>(n));
  }
  return 0;
}

static int runWrite(const Operation& operation) {
  auto vector = vectorOf(operation);
  off_t offset = operation.offset;
  for (size_t at = 0; at < vector.size();) {
    ssize_t n = pwritev(operation.fd, &vector[at], static_cast<int>(std::min<size_t>(vector.size() - at, IOV_MAX)), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EIO;
    offset += n;
    advance(vector, at, static_cast<size_t>(n));
  }
  return 0;
}

static int runStoreRead(const Operation& operation) {
  auto offset = static_cast<uint64_t>(operation.offset);
  for (const auto& range : operation.ranges) {
    if (int err = operation.reader->read(offset, range.base, range.length)) return err;
    offset += range.length;
  }
  return 0;
}

static int runZeroMemory(const Operation& operation) {
  for (const auto& range : operation.ranges) memset(range.base, 0, range.length);
  return 0;
}

// Reads `length` bytes; those after the end of the file are zeros.
static int readWithZeros(int fd, uint8_t* into, size_t length, off_t offset) {
  for (size_t done = 0; done < length;) {
    ssize_t n = pread(fd, into + done, length - done, offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) {
      memset(into + done, 0, length - done);
      return 0;
    }
    done += static_cast<size_t>(n);
  }
  return 0;
}

static int writeAll(int fd, const uint8_t* from, size_t length, off_t offset) {
  for (size_t done = 0; done < length;) {
    ssize_t n = pwrite(fd, from + done, length - done, offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EIO;
    done += static_cast<size_t>(n);
  }
  return 0;
}

// Copies to operation.toFd what `read(into, length, offset from the start)` gives.
template <class Read>
static int copyThrough(const Operation& operation, Read read) {
  auto size = static_cast<size_t>(std::min<int64_t>(operation.length, kBounceBytes));
  std::unique_ptr<uint8_t[]> bounce(new uint8_t[size]);
  for (int64_t done = 0; done < operation.length;) {
    auto count = static_cast<size_t>(std::min<int64_t>(operation.length - done, static_cast<int64_t>(size)));
    if (int err = read(bounce.get(), count, done)) return err;
    if (int err = writeAll(operation.toFd, bounce.get(), count, operation.toOffset + done)) return err;
    done += static_cast<int64_t>(count);
  }
  return 0;
}

static int runCopy(const Operation& operation) {
  return copyThrough(operation, [&](uint8_t* into, size_t count, int64_t done) {
    return readWithZeros(operation.fd, into, count, operation.offset + done);
  });
}

static int runStoreCopy(const Operation& operation) {
  return copyThrough(operation, [&](uint8_t* into, size_t count, int64_t done) {
    return operation.reader->read(static_cast<uint64_t>(operation.offset + done), into, count);
  });
}

static int runSync(const Operation& operation) {
  int rc;
  do rc = fdatasync(operation.fd);
  while (rc < 0 && errno == EINTR);
  return rc < 0 ? errno : 0;
}

static int changeBlocks(const Operation& operation, int mode) {
  int rc;
  do rc = fallocate(operation.fd, mode, operation.offset, operation.length);
  while (rc < 0 && errno == EINTR);
  return rc < 0 ? errno : 0;
}

static int runAllocate(const Operation& operation) { return changeBlocks(operation, FALLOC_FL_KEEP_SIZE); }

static int runPunch(const Operation& operation) {
  return changeBlocks(operation, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
}

// Sets the bit of each block of kPageBytes that may hold data, in `ranges[0]`. Moves the descriptor's position.
static int runFindData(const Operation& operation) {
  uint8_t* bits = operation.ranges[0].base;
  auto block = static_cast<int64_t>(kPageBytes);
  auto mark = [&](int64_t begin, int64_t end) {
    for (int64_t n = begin / block; n * block < std::min(end, operation.length); n++) bits[n / 8] |= 1 << n % 8;
  };
  for (int64_t at = 0; at < operation.length;) {
    off_t begin, end;
    int err = findData(operation.fd, at, &begin, &end);
    if (err == ENXIO) return 0;
    // A device, or a file system that does not know its holes.
    if (err != 0) begin = at, end = operation.length;
    mark(begin, end);
    at = end;
  }
  return 0;
}

static Registry<IoEngine>& engines() {
  static auto* registry = new Registry<IoEngine>();
  return *registry;
}

static std::shared_ptr<IoEngine> engineArg(const Napi::CallbackInfo& info) {
  auto engine = engines().find(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
  if (!engine) throwGone(info.Env());
  return engine;
}

static int fdArg(const Napi::CallbackInfo& info, size_t index) {
  return static_cast<int>(integerArg(info, index, 0, INT32_MAX));
}

// Triples of memory, offset and length, checked.
static std::vector<Range> rangesArg(const Napi::CallbackInfo& info, size_t index) {
  const char* what = "ranges are not at most 1024 triples in a Float64Array";
  auto [data, count] = elementsArg(info, index, napi_float64_array, what);
  if (count % 3 != 0 || count / 3 > IOV_MAX) throwContract(info.Env(), what);
  const auto* numbers = static_cast<const double*>(data);
  RangeReader reader(info.Env());
  std::vector<Range> ranges;
  ranges.reserve(count / 3);
  int64_t total = 0;
  for (size_t at = 0; at < count; at += 3) {
    ranges.push_back(reader.read(numbers + at));
    total += static_cast<int64_t>(ranges.back().length);
    if (total > kMaxTransfer) throwContract(info.Env(), "the ranges of an operation are too long");
  }
  return ranges;
}

static Operation operationOf(const Napi::CallbackInfo& info, Operation::Run run) {
  Operation operation;
  operation.run = run;
  operation.id = static_cast<int32_t>(integerArg(info, 1, INT32_MIN, INT32_MAX));
  return operation;
}

static Napi::Value submit(const Napi::CallbackInfo& info, Operation operation) {
  auto engine = engineArg(info);
  try {
    return Napi::Boolean::New(info.Env(), engine->submit(std::move(operation)));
  } catch (const std::system_error& error) {
    throwErrno(info.Env(), "pthread_create", error.code().value());
  }
}

// ioCreate(threads, capacity) → handle
static Napi::Value ioCreate(const Napi::CallbackInfo& info) {
  auto threads = static_cast<size_t>(integerArg(info, 0, 1, 16));
  auto capacity = static_cast<size_t>(integerArg(info, 1, 1, 65536));
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throwErrno(info.Env(), "eventfd", errno);
  return Napi::Number::New(info.Env(), engines().add(std::make_shared<IoEngine>(threads, capacity, fd)));
}

// ioClose(engine, timeoutMs) → boolean: true once nothing runs any more. Blocks until then, or for that time.
static Napi::Value ioClose(const Napi::CallbackInfo& info) {
  auto handle = static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX));
  int64_t timeoutMs = integerArg(info, 1, 0, INT32_MAX);
  auto engine = engines().find(handle);
  bool isQuiet = !engine || engine->close(timeoutMs);
  if (isQuiet) engines().remove(handle);
  return Napi::Boolean::New(info.Env(), isQuiet);
}

// ioFd(engine) → eventfd
static Napi::Value ioFd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), engineArg(info)->eventFd());
}

// ioTake(engine, into: Int32Array) → number of pairs (id, result)
static Napi::Value ioTake(const Napi::CallbackInfo& info) {
  auto engine = engineArg(info);
  auto [data, count] = elementsArg(info, 1, napi_int32_array, "completions go into an Int32Array");
  return Napi::Number::New(info.Env(), static_cast<double>(engine->take(static_cast<int32_t*>(data), count / 2)));
}

// ioWait(engine, timeoutMs) → boolean. Blocks.
static Napi::Value ioWait(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), engineArg(info)->wait(integerArg(info, 1, -1, INT32_MAX)));
}

static Napi::Value submitTransfer(const Napi::CallbackInfo& info, Operation operation) {
  operation.offset = integerArg(info, 3, 0, kMaxOffset);
  operation.ranges = rangesArg(info, 4);
  return submit(info, std::move(operation));
}

// (engine, id, fd, offset, ranges)
template <Operation::Run run>
static Napi::Value ioTransfer(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, run);
  operation.fd = fdArg(info, 2);
  return submitTransfer(info, std::move(operation));
}

// ioStoreRead(engine, id, reader, offset, ranges)
static Napi::Value ioStoreRead(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, runStoreRead);
  operation.reader = regionReaderArg(info, 2);
  return submitTransfer(info, std::move(operation));
}

// ioZeroMemory(engine, id, ranges)
static Napi::Value ioZeroMemory(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, runZeroMemory);
  operation.ranges = rangesArg(info, 2);
  return submit(info, std::move(operation));
}

static Napi::Value submitCopy(const Napi::CallbackInfo& info, Operation operation) {
  operation.offset = integerArg(info, 3, 0, kMaxOffset);
  operation.toFd = fdArg(info, 4);
  operation.toOffset = integerArg(info, 5, 0, kMaxOffset);
  operation.length = integerArg(info, 6, 0, kMaxTransfer);
  return submit(info, std::move(operation));
}

// ioCopy(engine, id, fd, offset, toFd, toOffset, length)
static Napi::Value ioCopy(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, runCopy);
  operation.fd = fdArg(info, 2);
  return submitCopy(info, std::move(operation));
}

// ioStoreCopy(engine, id, reader, offset, toFd, toOffset, length)
static Napi::Value ioStoreCopy(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, runStoreCopy);
  operation.reader = regionReaderArg(info, 2);
  return submitCopy(info, std::move(operation));
}

// ioSync(engine, id, fd)
static Napi::Value ioSync(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, runSync);
  operation.fd = fdArg(info, 2);
  return submit(info, std::move(operation));
}

// ioFindData(engine, id, fd, length, ranges): one range, with a bit for each block of the file's first `length` bytes.
static Napi::Value ioFindData(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, runFindData);
  operation.fd = fdArg(info, 2);
  operation.length = integerArg(info, 3, 1, kMaxOffset);
  operation.ranges = rangesArg(info, 4);
  auto blocks = (static_cast<size_t>(operation.length) + kPageBytes - 1) / kPageBytes;
  if (operation.ranges.size() != 1 || operation.ranges[0].length < (blocks + 7) / 8)
    throwContract(info.Env(), "the bits do not fit their range");
  return submit(info, std::move(operation));
}

// (engine, id, fd, offset, length)
template <Operation::Run run>
static Napi::Value ioBlocks(const Napi::CallbackInfo& info) {
  auto operation = operationOf(info, run);
  operation.fd = fdArg(info, 2);
  operation.offset = integerArg(info, 3, 0, kMaxOffset);
  operation.length = integerArg(info, 4, 1, kMaxTransfer);
  return submit(info, std::move(operation));
}

void initBlockIo(Napi::Env env, Napi::Object exports) {
  exports.Set("ioCreate", Napi::Function::New(env, ioCreate));
  exports.Set("ioClose", Napi::Function::New(env, ioClose));
  exports.Set("ioFd", Napi::Function::New(env, ioFd));
  exports.Set("ioTake", Napi::Function::New(env, ioTake));
  exports.Set("ioWait", Napi::Function::New(env, ioWait));
  exports.Set("ioRead", Napi::Function::New(env, ioTransfer<runRead>));
  exports.Set("ioWrite", Napi::Function::New(env, ioTransfer<runWrite>));
  exports.Set("ioStoreRead", Napi::Function::New(env, ioStoreRead));
  exports.Set("ioZeroMemory", Napi::Function::New(env, ioZeroMemory));
  exports.Set("ioCopy", Napi::Function::New(env, ioCopy));
  exports.Set("ioStoreCopy", Napi::Function::New(env, ioStoreCopy));
  exports.Set("ioSync", Napi::Function::New(env, ioSync));
  exports.Set("ioAllocate", Napi::Function::New(env, ioBlocks<runAllocate>));
  exports.Set("ioFindData", Napi::Function::New(env, ioFindData));
  exports.Set("ioPunch", Napi::Function::New(env, ioBlocks<runPunch>));
}

}  // namespace livesnap
