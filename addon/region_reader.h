// The verified reader of one region of a snapshot (docs/format.md, "Manifests" and "How a reader verifies data"). Native
// counterpart of src/store/snapshot/manifest.ts and worker/read-batch.ts, for disks under a running machine. Any thread,
// several at a time; no JavaScript.
//
// Invariants:
// - Bytes are given only after their frame passed its checksum and their page has the fingerprint in the manifest, whose
//   block has the digest in the snapshot's file.
// - Verified bytes are in memory of the reader's own. Nothing is verified in memory that a guest can write.
// - A reader holds no lock. Manifest blocks are read on demand, and a bounded number is kept.
#pragma once
#include <napi.h>

#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "pack_directory.h"

namespace livesnap {

extern const char* const kWrongPage;

class RegionReader {
 public:
  struct Options {
    std::shared_ptr<PackDirectory> packs;
    uint64_t sizeBytes;
    std::vector<uint8_t> blocks;  // entries as in the snapshot's file; see isValid
    uint64_t fingerprintMask;
  };
  // Whether the entries ascend and are within bounds, as findInvalidEntry of src/store/snapshot/block-list.ts says.
  static bool isValid(const std::vector<uint8_t>& blocks, uint64_t sizeBytes);
  explicit RegionReader(Options options) : options_(std::move(options)) {}

  // Fills `into`. Bytes after the end of the region are zeros. 0 or an errno value; see lastFailure.
  int read(uint64_t offset, uint8_t* into, size_t length);
  // Sets bit i of the 64 bytes `into` if page i of a manifest block is not zero. 0 or an errno value.
  int dataPages(uint32_t block, uint8_t* into);
  // False: all these bytes are zero, as the entries alone show.
  bool hasData(uint64_t offset, uint64_t length) const;
  std::optional<ReadFailure> lastFailure();

  // What follows is for a reader of whole regions (memory_fill.h). It throws ReadFailure.

  // A page that is not zero, and where it is stored.
  struct Place {
    uint32_t page, pack, chunk;
    uint64_t fingerprint;
  };
  size_t blockCount() const;
  // How many pages of a listed block are not zero, as the list says. `index`: below blockCount.
  uint32_t pagesListed(size_t index) const;
  // Appends the places of a listed block. It is not kept.
  void readPlaces(size_t index, std::vector<Place>& into) const;
  // The page, verified. `frame` keeps its bytes. Null bytes: it is zero.
  PackDirectory::Chunk readChunk(uint64_t page);
  PackDirectory& packs() const { return *options_.packs; }
  bool hasFingerprint(const uint8_t* page, uint64_t expected) const { return fingerprint(page) == expected; }
  uint64_t pageCount() const;

 private:
  struct Block;
  using BlockPointer = std::shared_ptr<const Block>;
  const uint8_t* entryOf(uint32_t block) const;
  // Null: the block is all zero.
  BlockPointer blockOf(uint32_t block);
  BlockPointer readBlock(const uint8_t* entry) const;
  void forget(uint32_t block);
  PackDirectory::Chunk chunkOf(const Block& block, uint64_t page);
  void readPage(const Block& block, uint64_t page, size_t skip, uint8_t* into, size_t length);
  void readPages(uint64_t offset, uint8_t* into, size_t length);
  uint64_t fingerprint(const uint8_t* page) const;
  template <class Work>
  int guarded(Work work);

  const Options options_;
  std::mutex mutex_;  // for what follows; not held during I/O
  std::list<BlockPointer> order_;  // the most recently used first
  std::unordered_map<uint32_t, std::list<BlockPointer>::iterator> cached_;
  std::optional<ReadFailure> failure_;
};

// The reader of a handle; null for a closed one. Any thread.
std::shared_ptr<RegionReader> findRegionReader(uint32_t handle);

// The reader of a handle; throws MACHINE_GONE for a closed one. Any JS thread.
std::shared_ptr<RegionReader> regionReaderArg(const Napi::CallbackInfo& info, size_t index);

void initRegionReader(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
