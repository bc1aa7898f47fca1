// One sealed pack of a store, open for reading (docs/format.md, "Packs"). Native counterpart of src/store/pack/
// pack-reader.ts, for threads without JavaScript. Any thread; an open pack does not change.
//
// Invariants:
// - Bytes are verified by their checksum, and numbers are checked against their bounds, before they are used.
// - Opening follows no link, does not block, and accepts regular files only.
// - Every failure is a ReadFailure with the file, the offset and an errno value: EBADMSG for damage, EOPNOTSUPP for a
//   newer format, else that of the system call.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace livesnap {

constexpr size_t kPageBytes = 4096;
constexpr uint32_t kFrameChunks = 16;
constexpr uint32_t kPackChunks = 32768;
constexpr size_t kFrameHeaderBytes = 16;
constexpr size_t kMaxFrameBytes = kFrameHeaderBytes + 2 * kFrameChunks + kFrameChunks * kPageBytes;

// Thrown, and caught within native code: it never crosses into JavaScript.
struct ReadFailure {
  int err;
  std::string file;  // relative to the store
  int64_t offset;    // −1: the whole file
  std::string why;
  bool missing = false;  // the file does not exist
};

// `packs/0000002a-0.pack`
std::string packName(uint32_t number, uint32_t generation);

// The chunks of a frame, unpacked.
struct Frame {
  explicit Frame(uint32_t chunks) : bytes(new uint8_t[chunks * kPageBytes]) {}
  std::unique_ptr<uint8_t[]> bytes;
};

// A row of the frame table.
struct FrameEntry {
  uint32_t offset;
  uint32_t storedBytes;
  uint32_t first;
  uint16_t chunks;
  uint16_t flags;
};

class PackFile {
 public:
  // Opens `NUMBER-GENERATION.pack` in the directory `dirFd` and verifies header, footer and lists.
  PackFile(int dirFd, uint32_t number, uint32_t generation);
  ~PackFile();
  PackFile(const PackFile&) = delete;
  PackFile& operator=(const PackFile&) = delete;

  // Index of the frame that has a chunk, and the chunk's position in it.
  struct At {
    uint32_t frame;
    uint32_t index;
  };
  At find(uint32_t chunk) const;
  // Reads, verifies and unpacks a frame.
  std::shared_ptr<const Frame> readFrame(uint32_t index) const;
  // The same, into memory of the caller: `into` has room for kFrameChunks pages, `stored` for kMaxFrameBytes.
  void readFrame(uint32_t index, uint8_t* into, uint8_t* stored) const;
  const FrameEntry& frame(uint32_t index) const { return frames_[index]; }

  const uint32_t number;
  const uint32_t generation;
  const uint64_t serial;  // no other pack that was ever open in this process has it
  const std::string name;

 private:
  void readExactly(uint8_t* into, uint64_t offset, size_t length) const;
  void openFile(int dirFd);
  void readLists();
  void decodeLists(const uint8_t* tables, uint32_t frames, uint32_t chunks);
  [[noreturn]] void damaged(int64_t offset, const char* why) const;

  int fd_ = -1;
  uint64_t sizeBytes_ = 0;
  uint64_t trailerOffset_ = 0;
  std::vector<FrameEntry> frames_;
  std::vector<uint32_t> numbers_;
};

}  // namespace livesnap
