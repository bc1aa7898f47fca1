#include "io_engine.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <system_error>
#include <thread>

namespace livesnap {

IoEngine::~IoEngine() { ::close(eventFd_); }

bool IoEngine::submit(Operation operation) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (pending_ >= capacity_ || closing_) return false;
  if (idle_ <= queue_.size() && threads_ < maxThreads_) startThread();
  queue_.push_back(std::move(operation));
  pending_++;
  work_.notify_one();
  return true;
}

size_t IoEngine::take(int32_t* pairs, size_t room) {
  std::lock_guard<std::mutex> lock(mutex_);
  size_t count = std::min(room, done_.size());
  for (size_t i = 0; i < count; i++) {
    pairs[2 * i] = done_.front().id;
    pairs[2 * i + 1] = done_.front().result;
    done_.pop_front();
  }
  pending_ -= count;
  if (count > 0 && done_.empty()) {
    uint64_t ignored;
    while (read(eventFd_, &ignored, sizeof ignored) < 0 && errno == EINTR) continue;
  }
  return count;
}

bool IoEngine::wait(int64_t timeoutMs) {
  std::unique_lock<std::mutex> lock(mutex_);
  auto ready = [&] { return !done_.empty() || closing_; };
  if (timeoutMs < 0)
    completed_.wait(lock, ready);
  else
    completed_.wait_for(lock, std::chrono::milliseconds(timeoutMs), ready);
  return !done_.empty();
}

bool IoEngine::close(int64_t timeoutMs) {
  std::deque<Operation> dropped;  // destructed without the mutex
  std::unique_lock<std::mutex> lock(mutex_);
  closing_ = true;
  dropped.swap(queue_);
  work_.notify_all();
  completed_.notify_all();
  bool isQuiet = ended_.wait_for(lock, std::chrono::milliseconds(timeoutMs), [&] { return threads_ == 0; });
  lock.unlock();
  return isQuiet;
}

// Under the mutex. Every signal is blocked in the new thread, so that those to the process go to others. Faults keep their
// handlers.
void IoEngine::startThread() {
  sigset_t all, before;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([self = shared_from_this()] { self->serve(); }).detach();
    threads_++;
    idle_++;
  } catch (const std::system_error&) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (threads_ == 0) throw;
    return;  // those that run do its work
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

static int32_t runOne(const Operation& operation) {
  try {
    return operation.run(operation);
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
}

// An I/O thread.
void IoEngine::serve() {
  pthread_setname_np(pthread_self(), "io");
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return closing_ || !queue_.empty(); });
    if (closing_) {
      threads_--;
      ended_.notify_all();
      return;
    }
    Operation operation = std::move(queue_.front());
    queue_.pop_front();
    idle_--;
    lock.unlock();
    Completion completion = {operation.id, runOne(operation)};
    operation = Operation();
    lock.lock();
    idle_++;
    done_.push_back(completion);
    completed_.notify_all();
    if (done_.size() > 1) continue;
    uint64_t one = 1;
    while (write(eventFd_, &one, sizeof one) < 0 && errno == EINTR) continue;
  }
}

}  // namespace livesnap
