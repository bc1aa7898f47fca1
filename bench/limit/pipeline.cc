// The bare pipeline: what a full save takes at least on this host. Two threads (as many as the host has cores, at most)
// work on the same image without a store, an index or JavaScript between them:
//
//   zero scan and XXH64 of pages → equal pages are dropped after a comparison → BLAKE3 and LZ4 of 16 new pages at a time →
//   writing to one file, with early write-back → fsync
//
// Threads: `--threads` workers take blocks of 256 pages in turn, so all steps overlap.
// Invariants:
// - The image is in memory before the clock starts, as RAM is before a save. The clock ends after fsync and close.
// - A page is in the file once. Each has 40 bytes beside it, digest and fingerprint, as in a trailer of a pack.
//
//     pipeline [--threads N] [--rounds N] [--level N] FILE IMAGE...   one JSON value: seconds of each round, and counts
//
// With a level from 1 on, LZ4-HC compresses, at that level.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../../addon/blake3_pages.h"
#include "../../addon/third_party/lz4/lz4.h"
#include "../../addon/third_party/lz4/lz4hc.h"
#define XXH_INLINE_ALL
#include "../../addon/third_party/xxhash/xxhash.h"

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kFramePages = 16;
constexpr size_t kBlockPages = 256;
constexpr size_t kDigest = livesnap::kBlake3Bytes;
constexpr size_t kWrite = 1 << 20;
/** Between two requests for write-back. */
constexpr uint64_t kWriteBack = 8 << 20;

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

/** Open addressing; the image has fewer pages than half its places. */
class Pages {
 public:
  explicit Pages(size_t count) {
    while (size_ < 2 * count) size_ *= 2;
    places_.assign(size_, {0, nullptr});
  }

  /** Whether no equal page was added before. Calls hold `lock`. */
  bool add(uint64_t fingerprint, const uint8_t* page) {
    for (size_t at = fingerprint & (size_ - 1);; at = (at + 1) & (size_ - 1)) {
      auto& [known, bytes] = places_[at];
      if (bytes == nullptr) {
        places_[at] = {fingerprint, page};
        return true;
      }
      if (known == fingerprint && memcmp(bytes, page, kPage) == 0) return false;
    }
  }

  std::mutex lock;

 private:
  struct Place {
    uint64_t fingerprint;
    const uint8_t* page;
  };
  size_t size_ = 1024;
  std::vector<Place> places_;
};

struct Run {
  const uint8_t* image;
  size_t pages;
  int file;
  /** Of LZ4-HC; 0: LZ4. */
  int level;
  Pages known;
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> end{0};
  std::atomic<uint64_t> stored{0};
  std::atomic<uint64_t> zero{0};
  /** Bytes of frames alone, without what is beside them. */
  std::atomic<uint64_t> frames{0};
};

bool isZero(const uint8_t* page) { return page[0] == 0 && memcmp(page, page + 1, kPage - 1) == 0; }

class Worker {
 public:
  explicit Worker(Run& run) : run_(run) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void work() {
    for (size_t at; (at = run_.next.fetch_add(kBlockPages)) < run_.pages;)
      block(at, at + kBlockPages < run_.pages ? at + kBlockPages : run_.pages);
    if (frame_ > 0) store();
    write();
    run_.stored += storedPages_;
    run_.zero += zeroPages_;
  }

 private:
  void block(size_t from, size_t to) {
    uint64_t fingerprints[kBlockPages];
    const uint8_t* pages[kBlockPages];
    size_t count = 0;
    for (size_t i = from; i < to; i++) {
      const uint8_t* page = run_.image + i * kPage;
      if (isZero(page)) {
        zeroPages_++;
        continue;
      }
      fingerprints[count] = XXH64(page, kPage, 0);
      pages[count++] = page;
    }
    size_t fresh = 0;
    {
      std::lock_guard<std::mutex> held(run_.known.lock);
      for (size_t i = 0; i < count; i++) {
        if (!run_.known.add(fingerprints[i], pages[i])) continue;
        fingerprints[fresh] = fingerprints[i];
        pages[fresh++] = pages[i];
      }
    }
    for (size_t i = 0; i < fresh; i++) add(fingerprints[i], pages[i]);
  }

  void add(uint64_t fingerprint, const uint8_t* page) {
    memcpy(raw_ + frame_ * kPage, page, kPage);
    fingerprints_[frame_] = fingerprint;
    storedPages_++;
    if (++frame_ == kFramePages) store();
  }

  void store() {
    const size_t bytes = frame_ * kPage;
    const uint8_t* pages[kFramePages];
    for (size_t i = 0; i < frame_; i++) pages[i] = raw_ + i * kPage;
    uint8_t digests[kFramePages][kDigest];
    static_assert(kFramePages <= livesnap::kBlake3Pages, "one call hashes a frame");
    livesnap::blake3Pages(pages, frame_, digests[0]);
    uint8_t* output = output_.get() + used_;
    const char* from = reinterpret_cast<char*>(raw_);
    char* to = reinterpret_cast<char*>(output);
    const int length = static_cast<int>(bytes);
    int size = run_.level > 0 ? LZ4_compress_HC(from, to, length, length - 1, run_.level)
                              : LZ4_compress_default(from, to, length, length - 1);
    if (size <= 0) {
      memcpy(output, raw_, bytes);
      size = static_cast<int>(bytes);
    }
    memcpy(output + size, digests, frame_ * kDigest);
    memcpy(output + size + frame_ * kDigest, fingerprints_, frame_ * 8);
    used_ += static_cast<size_t>(size) + frame_ * (kDigest + 8);
    run_.frames += static_cast<uint64_t>(size);
    frame_ = 0;
    if (used_ >= kWrite) write();
  }

  void write() {
    if (used_ == 0) return;
    const uint64_t at = run_.end.fetch_add(used_);
    for (size_t done = 0; done < used_;) {
      const ssize_t wrote = pwrite(run_.file, output_.get() + done, used_ - done, static_cast<off_t>(at + done));
      if (wrote <= 0) fail("pwrite");
      done += static_cast<size_t>(wrote);
    }
    const uint64_t piece = (at + used_) / kWriteBack;
    if (at / kWriteBack != piece)
      sync_file_range(run_.file, static_cast<off_t>((piece - 1) * kWriteBack), kWriteBack, SYNC_FILE_RANGE_WRITE);
    used_ = 0;
  }

  Run& run_;
  std::unique_ptr<uint8_t[]> output_{new uint8_t[kWrite + kFramePages * (kPage + kDigest + 8)]};
  size_t used_ = 0;
  uint8_t raw_[kFramePages * kPage];
  uint64_t fingerprints_[kFramePages];
  size_t frame_ = 0;
  uint64_t storedPages_ = 0;
  uint64_t zeroPages_ = 0;
};

/** Reads the whole pages of a file, and returns where they end. */
char* readImage(const char* path, char* into) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (file < 0 || fstat(file, &status) != 0) fail(path);
  const size_t size = static_cast<size_t>(status.st_size) / kPage * kPage;
  for (size_t done = 0; done < size;) {
    const ssize_t got = pread(file, into + done, size - done, static_cast<off_t>(done));
    if (got <= 0) fail(path);
    done += static_cast<size_t>(got);
  }
  close(file);
  return into + size;
}

}  // namespace

int main(int argc, char** argv) {
  unsigned threads = 2;
  int rounds = 1;
  int level = 0;
  int at = 1;
  for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
    if (strcmp(argv[at], "--threads") == 0) threads = static_cast<unsigned>(atoi(argv[at + 1]));
    else if (strcmp(argv[at], "--rounds") == 0) rounds = atoi(argv[at + 1]);
    else if (strcmp(argv[at], "--level") == 0) level = atoi(argv[at + 1]);
    else break;
  }
  if (argc - at < 2 || threads < 1 || threads > 64 || rounds < 1) {
    fprintf(stderr, "usage: pipeline [--threads N] [--rounds N] [--level N] FILE IMAGE...\n");
    return 2;
  }
  livesnap::prepareBlake3();
  const char* target = argv[at];
  const std::vector<const char*> images(argv + at + 1, argv + argc);
  size_t size = 0;
  for (const char* image : images) {
    struct stat status;
    if (stat(image, &status) != 0) fail(image);
    size += static_cast<size_t>(status.st_size) / kPage * kPage;
  }
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (size == 0 || memory == MAP_FAILED) fail("mmap");
  char* end = static_cast<char*>(memory);
  for (const char* image : images) end = readImage(image, end);
  std::string seconds;
  uint64_t bytes = 0, frames = 0, stored = 0, zero = 0;
  for (int round = 0; round < rounds; round++) {
    unlink(target);
    const auto begun = std::chrono::steady_clock::now();
    const int file = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) fail(target);
    Run run{static_cast<uint8_t*>(memory), size / kPage, file, level, Pages(size / kPage)};
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < threads; i++) workers.emplace_back([&run] { Worker(run).work(); });
    for (auto& worker : workers) worker.join();
    if (fsync(file) != 0 || close(file) != 0) fail("fsync");
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    seconds += (round > 0 ? "," : "") + std::to_string(took.count());
    bytes = run.end, frames = run.frames, stored = run.stored, zero = run.zero;
  }
  printf("{\"seconds\":[%s],\"bytes\":%llu,\"frameBytes\":%llu,\"storedPages\":%llu,\"zeroPages\":%llu,\"threads\":%u}\n", seconds.c_str(),
         static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(frames),
         static_cast<unsigned long long>(stored), static_cast<unsigned long long>(zero), threads);
}
