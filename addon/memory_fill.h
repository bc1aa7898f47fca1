// Fills memories from regions of a snapshot, before a machine runs or while it does (docs/format.md, "How a reader
// verifies data"; userfaultfd(2)).
//
// Threads: filling threads work in the order of packs and frames, so that each frame is read and unpacked once. A lazy
// fill also has fault threads. They fill what somebody waits for: its frame, and up to three of the frames behind it.
// The filling threads of a lazy fill begin with what an earlier fill of the same snapshot had faults for.
//
// Invariants:
// - A page is verified in memory of the thread's own, and then put in place as a whole.
// - No thread of a fill calls JavaScript, makes a KVM call, waits for a thread that does, or touches a memory that it
//   fills. So whoever waits in a page fault continues.
// - Of a lazy fill nobody sees zeros where a page is missing, until the machine has been halted (Machine::halt).
// - A lazy fill gives the faults back when all is filled, when it fails, or when it is abandoned.
// - The first failure counts. A failure is tried again twice before: gc or repair may be replacing the pack.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "memory.h"
#include "region_reader.h"
#include "user_fault.h"

namespace livesnap {

struct Machine;

// A memory and the region that it is filled from. The region is no larger.
struct FillTarget {
  std::shared_ptr<Memory> memory;
  std::shared_ptr<RegionReader> reader;
};

struct FillFailure {
  ReadFailure read;     // `file` empty: the memory could not be written
  size_t target = 0;
  int64_t offset = -1;  // of the page in its memory; −1: of no single page
};

// 64 pages of a memory, or fewer at its end: what a fault fills.
struct FillWindow {
  uint32_t target;
  uint32_t page;  // the first one, a multiple of 16
};

class MemoryFill : public std::enable_shared_from_this<MemoryFill> {
 public:
  // `faults`: takes the pages; of a lazy fill it must serve kernel mode, too. Null: pages are written to the memory's file.
  // `wanted`: filled first, if lazy.
  MemoryFill(std::vector<FillTarget> targets, std::unique_ptr<UserFault> faults, bool lazy,
             std::vector<FillWindow> wanted = {});
  ~MemoryFill();
  MemoryFill(const MemoryFill&) = delete;
  MemoryFill& operator=(const MemoryFill&) = delete;

  // Called once: takes the faults of the memories and starts the threads. 0 or an errno value. `ended` is called on a
  // thread of the fill when the last one has ended.
  int start(size_t threads, std::function<void()> ended);
  // The machine that is halted when the fill fails. Halts it at once if the fill has failed already.
  void attach(const std::shared_ptr<Machine>& machine);
  // Somebody waits for the end: more threads work on it.
  void hurry();
  // Ends it, filled or not. Whoever waits in a fault continues, and finds zeros.
  void abandon();

  std::optional<FillFailure> failure();
  // What somebody waited for so far, in that order; the first 65,536.
  std::vector<FillWindow> faults();
  // All that is not zero has been filled.
  bool isComplete() const { return complete_; }
  uint64_t doneBytes() const { return donePages_ * kPageBytes; }
  uint64_t totalBytes() const { return totalPages_ * kPageBytes; }

 private:
  struct Place {
    RegionReader::Place at;
    uint32_t target;
  };
  struct Scratch;
  void startThread(const char* name, int niceness, void (MemoryFill::*work)());
  void fillAll();
  void fillWanted();
  bool takeWanted(FillWindow* window);
  bool takeBlock(size_t* target, size_t* index);
  bool listPlaces();
  bool takeSlice(size_t* begin, size_t* end);
  void fillSlice(size_t begin, size_t end, Scratch& scratch);
  void fillFrames(size_t begin, size_t end, Scratch& scratch, size_t* done);
  void fillSingly(size_t begin, size_t end);
  void put(size_t target, uint64_t page, const uint8_t* bytes, size_t pages);
  void serveFaults();
  void serve(uint8_t* address, uint8_t* window);
  void serveFrom(size_t target, uint64_t page, uint8_t* window);
  void fillWindow(size_t target, uint64_t first, uint8_t* window, std::vector<std::shared_ptr<const Frame>> frames);
  void zeroFrom(size_t target, uint64_t page);
  template <class Work>
  void retrying(size_t target, int64_t offset, Work work);
  void yieldToFaults();
  void fail(const FillFailure& failure);
  void giveBackFaults();
  void threadEnded();
  bool isFilled(size_t target, uint64_t page) const;

  const std::vector<FillTarget> targets_;
  const std::unique_ptr<UserFault> faults_;
  const bool lazy_;
  const std::vector<FillWindow> wanted_;
  int stopFd_ = -1;
  uint64_t totalPages_ = 0;
  std::function<void()> ended_;
  std::vector<std::vector<std::atomic<uint64_t>>> filled_;  // a bit for each page of each target, if lazy
  std::atomic<uint64_t> donePages_{0};
  std::atomic<uint32_t> faulting_{0};  // faults that are being served
  std::atomic<bool> stopping_{false}, complete_{false}, hurried_{false};

  std::mutex mutex_;  // for what follows; not held during I/O
  std::condition_variable changed_;
  size_t nextWanted_ = 0;
  std::vector<FillWindow> faultsServed_;
  size_t nextTarget_ = 0, nextBlock_ = 0;  // the next block to list
  size_t listing_ = 0;                     // threads that list blocks
  bool sorting_ = false, listed_ = false;
  std::vector<Place> places_;  // by pack and chunk; complete and constant once `listed_` is set
  size_t nextPlace_ = 0;
  size_t filling_ = 0, threads_ = 0;  // filling threads, and all
  bool over_ = false;                 // the last thread has ended; no other starts
  std::weak_ptr<Machine> machine_;
  std::optional<FillFailure> failure_;
};

void initMemoryFill(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
