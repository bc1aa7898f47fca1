// The packs of one store, open for reading, and the frames that were read last. Any thread.
//
// Invariants:
// - Readers of the same directory share one PackDirectory, and so its open files. All share the cache of frames.
// - What is open and what is cached is bounded. A file is closed with its last user.
// - A failure is not kept. When a pack fails, every generation in the directory is tried, because gc or repair may have
//   replaced the file that was open.
#pragma once
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "pack_file.h"

namespace livesnap {

class PackDirectory {
 public:
  // The directory at `path`, which is no link. Null: errno has the reason.
  static std::shared_ptr<PackDirectory> open(const char* path);
  ~PackDirectory();
  PackDirectory(const PackDirectory&) = delete;
  PackDirectory& operator=(const PackDirectory&) = delete;

  // A pack's generation as the index lists it. It saves a look into the directory and need not be right.
  void hint(uint32_t number, uint32_t generation);

  // One chunk. `frame` keeps the bytes.
  struct Chunk {
    std::shared_ptr<const Frame> frame;
    const uint8_t* bytes;
  };
  // Says why these are not the bytes that belong there; null: they are.
  using Check = std::function<const char*(const uint8_t* bytes)>;
  // The chunk of a place, if it passes `check`. Throws ReadFailure.
  Chunk read(uint32_t number, uint32_t chunk, const Check& check);
  // A pack as it was found last: the one that is open, else its listed generation. Throws ReadFailure.
  std::shared_ptr<const PackFile> openPack(uint32_t number);
  // Closes a pack. The next read opens it again, as it is then.
  void forget(uint32_t number);

 private:
  explicit PackDirectory(int fd) : fd_(fd) {}
  std::shared_ptr<const PackFile> openWithinLimit(uint32_t number, uint32_t generation);
  std::vector<uint32_t> generationsOnDisk(uint32_t number);
  void keep(std::shared_ptr<const PackFile> pack);
  void closeAll();

  const int fd_;
  std::mutex mutex_;  // for what follows; not held during I/O
  std::unordered_map<uint32_t, uint32_t> generations_;
  std::list<std::shared_ptr<const PackFile>> packs_;  // the most recently used first
  std::unordered_map<uint32_t, std::list<std::shared_ptr<const PackFile>>::iterator> byNumber_;
};

}  // namespace livesnap
