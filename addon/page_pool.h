// Native threads that compute for page jobs: they encode frames of packs and compare pages with stored ones.
//
// The threads belong to the process, start when there is work, and end when there was none for a while. A job runs on any
// of them, or on a thread that waits for it. Page Workers that use idle time have a pool of their own, so that nobody else
// waits for threads that run only when the host is idle.
//
// Invariants:
// - A job calls no JavaScript and no KVM, and does not wait for another job.
// - The pool holds a job until it has run, so the environment of its caller may end at any time.
#pragma once
#include <stddef.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>

namespace livesnap {

class PageJob {
 public:
  virtual ~PageJob() = default;
  virtual void run() noexcept = 0;
};

class PagePool {
 public:
  // The pool of the calling thread.
  static PagePool& get();

  // Threads that may run at once, beside those that wait and help.
  size_t threads() const { return maxThreads_; }
  // Without `wake`, no sleeping thread takes the job before the next one is submitted. Whoever waits for it runs it.
  void submit(std::shared_ptr<PageJob> job, bool wake = true);
  // Blocks until `isDone`, which a job makes true. Runs queued jobs meanwhile.
  template <class Predicate>
  void helpUntil(Predicate isDone) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!isDone())
      if (!jobs_.empty()) runNext(lock);
      else ended_.wait(lock);
  }
  // The same, without running jobs.
  template <class Predicate>
  void waitUntil(Predicate isDone) {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, isDone);
  }

 private:
  PagePool();
  void runNext(std::unique_lock<std::mutex>& lock);
  void serve();

  const size_t maxThreads_;
  std::mutex mutex_;  // for what follows; not held while a job runs
  std::condition_variable work_, ended_;
  std::deque<std::shared_ptr<PageJob>> jobs_;
  size_t threads_ = 0, idle_ = 0;
};

}  // namespace livesnap
