#include "page_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

#include "idle_time.h"

namespace livesnap {

// A processor is left to the thread that submits, which would be preempted by the threads that it wakes: on two processors a
// full save takes 1.3 times as long with a thread for each.
PagePool::PagePool()
    : maxThreads_(std::clamp<size_t>(std::max(std::thread::hardware_concurrency(), 2u) - 1, 1, 8)) {}

PagePool& PagePool::get() {
  // Never destructed: their threads may outlive static objects.
  static auto* pool = new PagePool();
  static auto* idlePool = new PagePool();
  return usesIdleTime() ? *idlePool : *pool;
}

void PagePool::submit(std::shared_ptr<PageJob> job, bool wake) {
  size_t wakened = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
    if (!wake) return;
    wakened = std::min(idle_, jobs_.size());
    try {
      for (size_t n = wakened; n < jobs_.size() && threads_ < maxThreads_; n++) {
        std::thread([this] { serve(); }).detach();
        threads_++;
      }
    } catch (const std::system_error&) {
      // Whoever waits for the job runs it.
    }
  }
  // Without the lock, which those that wake up want first.
  for (; wakened > 0; wakened--) work_.notify_one();
}

void PagePool::runNext(std::unique_lock<std::mutex>& lock) {
  auto job = std::move(jobs_.front());
  jobs_.pop_front();
  lock.unlock();
  job->run();
  job.reset();
  lock.lock();
  ended_.notify_all();
}

void PagePool::serve() {
  pthread_setname_np(pthread_self(), "page pool");
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    while (!jobs_.empty()) runNext(lock);
    idle_++;
    bool isWoken = work_.wait_for(lock, std::chrono::seconds(1), [this] { return !jobs_.empty(); });
    idle_--;
    if (!isWoken) break;
  }
  threads_--;
}

}  // namespace livesnap
