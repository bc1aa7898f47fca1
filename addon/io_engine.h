// The threads and queues of the I/O engine (block_io.h has its operations).
//
// Invariants:
// - An operation that was accepted runs once. No order between operations is promised.
// - An operation's references are dropped just before its completion is published.
// - At most `capacity` operations are queued, run, or have a completion that was not taken. More are refused.
// - The eventfd is readable exactly while completions wait. It is closed after the threads have ended.
// - An engine that is never closed neither keeps the process alive nor touches what exit handlers destruct.
// - Each thread holds the engine, so that one whose system call hangs may outlive its caller.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "memory.h"
#include "region_reader.h"

namespace livesnap {

// The operands that an operation of a kind needs; the others stay empty.
struct Operation {
  using Run = int (*)(const Operation&);
  Run run = nullptr;
  int32_t id = 0;
  int fd = -1;
  int64_t offset = 0;
  std::vector<Range> ranges;
  std::shared_ptr<RegionReader> reader;
  int toFd = -1;
  int64_t toOffset = 0;
  int64_t length = 0;
};

struct Completion {
  int32_t id;
  int32_t result;
};

class IoEngine : public std::enable_shared_from_this<IoEngine> {
 public:
  // `eventFd` becomes the engine's.
  IoEngine(size_t threads, size_t capacity, int eventFd)
      : eventFd_(eventFd), maxThreads_(threads), capacity_(capacity) {}
  ~IoEngine();
  IoEngine(const IoEngine&) = delete;
  IoEngine& operator=(const IoEngine&) = delete;

  int eventFd() const { return eventFd_; }
  // False: the engine is full, or closes. Throws std::system_error when not one thread can be started.
  bool submit(Operation operation);
  // Moves at most `room` completions to `pairs` of id and result. Returns their number.
  size_t take(int32_t* pairs, size_t room);
  // Blocks until a completion waits; false after the time, or when the engine closes. −1: no limit.
  bool wait(int64_t timeoutMs);
  // Drops what has not begun, waits for what runs, and ends the threads. False: something still runs after the time. Then
  // call it again; what it uses must stay. One thread at a time.
  bool close(int64_t timeoutMs);

 private:
  void startThread();
  void serve();

  const int eventFd_;
  const size_t maxThreads_, capacity_;
  std::mutex mutex_;  // for what follows; not held during an operation
  std::condition_variable work_, completed_, ended_;
  std::deque<Operation> queue_;
  std::deque<Completion> done_;
  size_t threads_ = 0;
  size_t idle_ = 0;     // threads that wait for an operation, or will soon
  size_t pending_ = 0;  // operations that were accepted and whose completions were not taken
  bool closing_ = false;
};

}  // namespace livesnap
