#include "memory_fill.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <system_error>
#include <thread>

#include "machine.h"

namespace livesnap {

static constexpr size_t kSlicePages = 256;
static constexpr size_t kWindowPages = 4 * kFrameChunks;  // the frame of a fault, and three neighbours
static constexpr size_t kZeroPages = 4;
static constexpr size_t kMaxFaults = 65536;  // a set that is larger is most of the memory
static constexpr int kAttempts = 3;
static constexpr auto kRetryAfter = std::chrono::milliseconds(20);
static constexpr int kBackground = 10;  // niceness of threads for which nobody waits

struct MemoryFill::Scratch {
  uint8_t raw[kFrameChunks * kPageBytes];
  uint8_t stored[kMaxFrameBytes];
};

MemoryFill::MemoryFill(std::vector<FillTarget> targets, std::unique_ptr<UserFault> faults, bool lazy,
                       std::vector<FillWindow> wanted)
    : targets_(std::move(targets)), faults_(std::move(faults)), lazy_(lazy), wanted_(std::move(wanted)) {
  for (const auto& [memory, reader] : targets_) {
    for (size_t i = 0; i < reader->blockCount(); i++) totalPages_ += reader->pagesListed(i);
    if (lazy_) filled_.emplace_back((memory->size / kPageBytes + 63) / 64);
  }
}

MemoryFill::~MemoryFill() {
  if (stopFd_ >= 0) close(stopFd_);
}

int MemoryFill::start(size_t threads, std::function<void()> ended) {
  ended_ = std::move(ended);
  stopFd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (stopFd_ < 0) return errno;
  if (faults_ != nullptr) {
    for (const auto& target : targets_) {
      target.memory->discardable = false;
      int err = faults_->add(target.memory->base, target.memory->size);
      if (err == 0) continue;
      giveBackFaults();
      return err;
    }
  }
  try {
    for (size_t i = 0; lazy_ && i < std::min<size_t>(threads, 2); i++)
      startThread("page faults", 0, &MemoryFill::serveFaults);
    for (size_t i = 0; i < (lazy_ ? std::max<size_t>(threads / 2, 1) : threads); i++)
      startThread("fill", lazy_ ? kBackground : 0, &MemoryFill::fillAll);
  } catch (const std::system_error& error) {
    // Those that run find that they have nothing to do, and the last one calls `ended`.
    fail({{error.code().value(), "", -1, "no thread can be started"}});
    std::lock_guard<std::mutex> lock(mutex_);
    if (threads_ == 0 && !over_) return error.code().value();
  }
  return 0;
}

// Every signal is blocked in the new thread, so that those to the process go to others. Faults keep their handlers.
void MemoryFill::startThread(const char* name, int niceness, void (MemoryFill::*work)()) {
  bool fills = work == &MemoryFill::fillAll;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (over_) return;  // the threads before it have done all the work
    threads_++;
    if (fills) filling_++;
  }
  sigset_t all, before;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([self = shared_from_this(), name, niceness, work] {
      pthread_setname_np(pthread_self(), name);
      if (niceness != 0) setpriority(PRIO_PROCESS, 0, niceness);  // of this thread
      try {
        (self.get()->*work)();
      } catch (const ReadFailure& failure) {
        self->fail({failure});
      } catch (const std::bad_alloc&) {
        self->fail({{ENOMEM, "", -1, "there is no memory"}});
      }
      self->threadEnded();
    }).detach();
  } catch (const std::system_error&) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    std::lock_guard<std::mutex> lock(mutex_);
    threads_--;
    if (fills) filling_--;
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void MemoryFill::threadEnded() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--threads_ > 0) return;
    over_ = true;
  }
  ended_();
}

// A filling thread.
void MemoryFill::fillAll() {
  fillWanted();
  auto scratch = std::make_unique<Scratch>();
  size_t begin, end;
  if (listPlaces())
    while (takeSlice(&begin, &end)) {
      fillSlice(begin, end, *scratch);
      yieldToFaults();
    }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--filling_ > 0 || stopping_ || failure_) return;
    complete_ = true;
    stopping_ = true;
    std::vector<Place>().swap(places_);
  }
  giveBackFaults();
}

// What an earlier fill had faults for, in their order. It is in memory when the guest comes to it.
void MemoryFill::fillWanted() {
  if (!lazy_ || wanted_.empty()) return;
  auto pages = std::make_unique<uint8_t[]>(kWindowPages * kPageBytes);
  FillWindow wanted;
  while (takeWanted(&wanted)) {
    retrying(wanted.target, static_cast<int64_t>(wanted.page * kPageBytes),
             [&] { fillWindow(wanted.target, wanted.page, pages.get(), {}); });
    yieldToFaults();
  }
}

bool MemoryFill::takeWanted(FillWindow* window) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_ || nextWanted_ == wanted_.size()) return false;
  *window = wanted_[nextWanted_++];
  return true;
}

bool MemoryFill::takeBlock(size_t* target, size_t* index) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return false;
  while (nextTarget_ < targets_.size() && nextBlock_ == targets_[nextTarget_].reader->blockCount()) {
    nextTarget_++;
    nextBlock_ = 0;
  }
  if (nextTarget_ == targets_.size()) return false;
  *target = nextTarget_;
  *index = nextBlock_++;
  return true;
}

// Reads the manifest blocks, with the other filling threads. The last one sorts. False: the fill is over.
bool MemoryFill::listPlaces() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (listed_) return true;
    listing_++;
  }
  std::vector<Place> mine;
  std::vector<RegionReader::Place> block;
  size_t target = 0, index = 0;
  while (takeBlock(&target, &index)) {
    retrying(target, -1, [&] {
      block.clear();
      targets_[target].reader->readPlaces(index, block);
    });
    for (const auto& at : block) mine.push_back({at, static_cast<uint32_t>(target)});
    yieldToFaults();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  places_.insert(places_.end(), mine.begin(), mine.end());
  if (--listing_ > 0 || sorting_) {
    changed_.wait(lock, [&] { return listed_ || stopping_; });
    return !stopping_;
  }
  sorting_ = true;
  lock.unlock();
  auto isBefore = [](const Place& a, const Place& b) {
    return a.at.pack != b.at.pack ? a.at.pack < b.at.pack : a.at.chunk < b.at.chunk;
  };
  if (!std::is_sorted(places_.begin(), places_.end(), isBefore))
    std::sort(places_.begin(), places_.end(), isBefore);
  lock.lock();
  listed_ = true;
  changed_.notify_all();
  return !stopping_;
}

// Places of one pack. A slice ends between two groups of 16 chunk numbers, where a frame usually ends.
bool MemoryFill::takeSlice(size_t* begin, size_t* end) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_ || nextPlace_ == places_.size()) return false;
  *begin = nextPlace_;
  const auto& first = places_[*begin].at;
  size_t at = *begin + 1;
  while (at < places_.size() && places_[at].at.pack == first.pack &&
         (at - *begin < kSlicePages || places_[at].at.chunk / kFrameChunks == places_[at - 1].at.chunk / kFrameChunks))
    at++;
  *end = nextPlace_ = at;
  return true;
}

// Reads by frames. What fails is read again page by page, from whatever generation of the pack has it.
void MemoryFill::fillSlice(size_t begin, size_t end, Scratch& scratch) {
  size_t done = begin;
  try {
    fillFrames(begin, end, scratch, &done);
  } catch (const ReadFailure& failure) {
    if (failure.file.empty()) {
      fail({failure, places_[done].target, static_cast<int64_t>(places_[done].at.page * kPageBytes)});
      return;
    }
    fillSingly(done, end);
  }
}

// Sets `done` to the first place that is not filled.
void MemoryFill::fillFrames(size_t begin, size_t end, Scratch& scratch, size_t* done) {
  auto& packs = targets_[places_[begin].target].reader->packs();
  auto pack = packs.openPack(places_[begin].at.pack);
  int64_t inScratch = -1;
  size_t runFrom = begin;   // the first place of the pages that are verified and not put in place
  uint32_t runIndex = 0;    // and its position in the frame
  auto putRun = [&](size_t to) {
    if (to == runFrom) return;
    const auto& first = places_[runFrom];
    put(first.target, first.at.page, scratch.raw + runIndex * kPageBytes, to - runFrom);
    *done = to;
  };
  for (size_t i = begin; i < end && !stopping_; i++) {
    const auto& [at, target] = places_[i];
    if (lazy_ && isFilled(target, at.page)) {
      putRun(i);
      *done = runFrom = i + 1;
      continue;
    }
    auto found = pack->find(at.chunk);
    bool follows = i > runFrom && found.frame == inScratch && target == places_[i - 1].target &&
                   at.page == places_[i - 1].at.page + 1 && found.index == runIndex + (i - runFrom);
    if (!follows) {
      putRun(i);
      runFrom = i;
      runIndex = found.index;
    }
    if (found.frame != inScratch) {
      inScratch = -1;
      pack->readFrame(found.frame, scratch.raw, scratch.stored);
      inScratch = found.frame;
    }
    if (!targets_[target].reader->hasFingerprint(scratch.raw + found.index * kPageBytes, at.fingerprint))
      throw ReadFailure{EBADMSG, pack->name, pack->frame(found.frame).offset, kWrongPage};
  }
  if (!stopping_) putRun(end);
}

void MemoryFill::fillSingly(size_t begin, size_t end) {
  for (size_t i = begin; i < end && !stopping_; i++) {
    const auto& [at, target] = places_[i];
    auto& reader = *targets_[target].reader;
    retrying(target, static_cast<int64_t>(at.page * kPageBytes), [&, &at = at, target = target] {
      auto chunk = reader.packs().read(at.pack, at.chunk, [&](const uint8_t* bytes) {
        return reader.hasFingerprint(bytes, at.fingerprint) ? nullptr : kWrongPage;
      });
      put(target, at.page, chunk.bytes, 1);
    });
  }
}

bool MemoryFill::isFilled(size_t target, uint64_t page) const {
  return (filled_[target][page / 64] >> page % 64 & 1) != 0;
}

// Throws a ReadFailure without a file when the memory cannot be written.
void MemoryFill::put(size_t target, uint64_t page, const uint8_t* bytes, size_t pages) {
  const Memory& memory = *targets_[target].memory;
  size_t offset = page * kPageBytes, length = pages * kPageBytes;
  if (faults_ != nullptr) {
    int err = faults_->copy(memory.base + offset, bytes, length);
    if (err != 0 && stopping_) return;
    if (err != 0) throw ReadFailure{err, "", static_cast<int64_t>(offset), "UFFDIO_COPY"};
  } else {
    for (size_t done = 0; done < length;) {
      ssize_t n = pwrite(memory.fd, bytes + done, length - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw ReadFailure{n < 0 ? errno : ENOSPC, "", static_cast<int64_t>(offset), "pwrite"};
      done += static_cast<size_t>(n);
    }
  }
  if (!lazy_) {
    donePages_ += pages;
    return;
  }
  for (size_t i = page; i < page + pages; i++) {
    uint64_t bit = uint64_t{1} << i % 64;
    if ((filled_[target][i / 64].fetch_or(bit) & bit) == 0) donePages_++;
  }
}

// A fault thread.
void MemoryFill::serveFaults() {
  auto window = std::make_unique<uint8_t[]>(kWindowPages * kPageBytes);
  pollfd waited[] = {{faults_->fd(), POLLIN, 0}, {stopFd_, POLLIN, 0}};
  while (!stopping_) {
    if (poll(waited, 2, -1) < 0 && errno != EINTR) throw ReadFailure{errno, "", -1, "poll"};
    uint8_t* address;
    while (!stopping_ && faults_->next(&address)) {
      faulting_++;
      serve(address, window.get());
      if (--faulting_ == 0) changed_.notify_all();
    }
  }
}

void MemoryFill::serve(uint8_t* address, uint8_t* window) {
  for (size_t target = 0; target < targets_.size(); target++) {
    const Memory& memory = *targets_[target].memory;
    if (address < memory.base || address >= memory.base + memory.size) continue;
    uint64_t page = static_cast<uint64_t>(address - memory.base) / kPageBytes;
    retrying(target, static_cast<int64_t>(page * kPageBytes), [&] { serveFrom(target, page, window); });
  }
}

// Fills the page, then the pages around it that are in the same frame or in the next three.
void MemoryFill::serveFrom(size_t target, uint64_t page, uint8_t* window) {
  auto& reader = *targets_[target].reader;
  auto chunk = reader.readChunk(page);
  if (chunk.bytes == nullptr) {
    zeroFrom(target, page);
    return;
  }
  put(target, page, chunk.bytes, 1);
  uint64_t first = page / kFrameChunks * kFrameChunks;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (faultsServed_.size() < kMaxFaults)
      faultsServed_.push_back({static_cast<uint32_t>(target), static_cast<uint32_t>(first)});
  }
  fillWindow(target, first, window, {chunk.frame});
}

// Fills the pages from `first` on that are in `frames`, or in the first frames beside those, of four in all. They are
// held, so that no address is used again.
void MemoryFill::fillWindow(size_t target, uint64_t first, uint8_t* window,
                            std::vector<std::shared_ptr<const Frame>> frames) {
  auto& reader = *targets_[target].reader;
  uint64_t last = std::min(first + kWindowPages, reader.pageCount());
  size_t run = 0;
  uint64_t at = first;
  auto putRun = [&] {
    if (run > 0) put(target, at - run, window, run);
    run = 0;
  };
  for (; at < last && !stopping_; at++) {
    auto next = isFilled(target, at) ? PackDirectory::Chunk{nullptr, nullptr} : reader.readChunk(at);
    if (next.bytes == nullptr) {
      putRun();
      continue;
    }
    if (std::find(frames.begin(), frames.end(), next.frame) == frames.end()) {
      if (frames.size() == kWindowPages / kFrameChunks) break;
      frames.push_back(next.frame);
    }
    memcpy(window + run++ * kPageBytes, next.bytes, kPageBytes);
  }
  putRun();
}

// A guest that uses new memory goes upwards. So a few zero pages behind this one come along.
void MemoryFill::zeroFrom(size_t target, uint64_t page) {
  auto& reader = *targets_[target].reader;
  const Memory& memory = *targets_[target].memory;
  uint64_t end = page + 1;
  uint64_t last = std::min<uint64_t>(page / kZeroPages * kZeroPages + kZeroPages, memory.size / kPageBytes);
  while (end < last && !reader.hasData(end * kPageBytes, kPageBytes)) end++;
  int err = faults_->zero(memory.base + page * kPageBytes, (end - page) * kPageBytes);
  if (err != 0 && !stopping_)
    throw ReadFailure{err, "", static_cast<int64_t>(page * kPageBytes), "UFFDIO_ZEROPAGE"};
}

// Does work on a page. If the store cannot be read, tries again; if that does not help, the fill fails.
template <class Work>
void MemoryFill::retrying(size_t target, int64_t offset, Work work) {
  for (int attempt = 1; !stopping_; attempt++) {
    try {
      work();
      return;
    } catch (const ReadFailure& failure) {
      if (attempt == kAttempts || failure.file.empty()) {
        fail({failure, target, offset});
        return;
      }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kRetryAfter, [&] { return stopping_.load(); });
  }
}

// Faults come first: the filling threads leave them the processors for a moment.
void MemoryFill::yieldToFaults() {
  if (faulting_ == 0 || hurried_) return;
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(1), [&] { return faulting_ == 0 || stopping_; });
}

void MemoryFill::hurry() {
  if (!lazy_ || stopping_ || hurried_.exchange(true)) return;
  size_t helpers;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    helpers = filling_;
    if (helpers == 0) return;  // all is filled
  }
  try {
    for (size_t i = 0; i < helpers; i++) startThread("fill", 0, &MemoryFill::fillAll);
  } catch (const std::system_error&) {
    return;  // those that run do the work
  }
}

void MemoryFill::attach(const std::shared_ptr<Machine>& machine) {
  bool hasFailed;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    machine_ = machine;
    hasFailed = failure_.has_value();
  }
  if (hasFailed) machine->halt();
}

// The guest must not see zeros, so it is halted first. Then whoever waits in a fault may continue.
void MemoryFill::fail(const FillFailure& failure) {
  std::shared_ptr<Machine> machine;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_ || failure_) return;
    failure_ = failure;
    machine = machine_.lock();
  }
  if (machine != nullptr) machine->halt();
  abandon();
}

void MemoryFill::abandon() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  giveBackFaults();
}

void MemoryFill::giveBackFaults() {
  if (faults_ != nullptr)
    for (const auto& target : targets_) {
      faults_->remove(target.memory->base, target.memory->size);
      target.memory->discardable = true;
    }
  uint64_t one = 1;
  if (write(stopFd_, &one, sizeof one) < 0) return;  // it is readable already
}

std::vector<FillWindow> MemoryFill::faults() {
  std::lock_guard<std::mutex> lock(mutex_);
  return faultsServed_;
}

std::optional<FillFailure> MemoryFill::failure() {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

}  // namespace livesnap
