#include "region_reader.h"

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <new>

#include "errors.h"
#include "pages.h"
#include "registry.h"

namespace livesnap {

const char* const kWrongPage = "a chunk is not the page that was saved";

static constexpr uint32_t kBlockPages = 512;
static constexpr uint64_t kBlockBytes = kBlockPages * kPageBytes;
static constexpr size_t kEntryBytes = 32;
static constexpr size_t kCachedBlocks = 256;  // 2 MiB, which cover 512 MiB of the region
static constexpr uint64_t kMaxRegionBytes = uint64_t{16} << 40;

template <class T>
static T numberAt(const uint8_t* bytes) {
  T value;
  memcpy(&value, bytes, sizeof value);
  return value;
}

struct RegionReader::Block {
  uint32_t number;
  struct {
    uint32_t pack, chunk;
  } places[kBlockPages];
  uint64_t fingerprints[kBlockPages];
};

static uint32_t blockNumber(const uint8_t* entry) { return numberAt<uint32_t>(entry + 24); }

bool RegionReader::isValid(const std::vector<uint8_t>& blocks, uint64_t sizeBytes) {
  if (blocks.size() % kEntryBytes != 0) return false;
  uint64_t next = 0;
  uint64_t end = (sizeBytes + kBlockBytes - 1) / kBlockBytes;
  for (size_t at = 0; at < blocks.size(); at += kEntryBytes) {
    const uint8_t* entry = blocks.data() + at;
    uint64_t number = blockNumber(entry);
    auto pages = numberAt<uint16_t>(entry + 28);
    if (number < next || number >= end || pages < 1 || pages > kBlockPages) return false;
    for (size_t place = 0; place < 16; place += 8)
      if (numberAt<uint32_t>(entry + place) == 0 || numberAt<uint32_t>(entry + place + 4) >= kPackChunks) return false;
    next = number + 1;
  }
  return true;
}

const uint8_t* RegionReader::entryOf(uint32_t block) const {
  size_t low = 0, high = options_.blocks.size() / kEntryBytes;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (blockNumber(options_.blocks.data() + middle * kEntryBytes) < block)
      low = middle + 1;
    else
      high = middle;
  }
  return options_.blocks.data() + low * kEntryBytes;
}

bool RegionReader::hasData(uint64_t offset, uint64_t length) const {
  if (length == 0 || offset >= options_.sizeBytes) return false;
  uint64_t last = std::min(offset + length, options_.sizeBytes) - 1;
  const uint8_t* entry = entryOf(static_cast<uint32_t>(offset / kBlockBytes));
  return entry != options_.blocks.data() + options_.blocks.size() && blockNumber(entry) <= last / kBlockBytes;
}

uint64_t RegionReader::fingerprint(const uint8_t* page) const {
  uint64_t hash = hashPage(page);
  if (hash == 0) return 0;
  hash &= options_.fingerprintMask;
  return hash != 0 ? hash : 1;
}

// Reads both halves of a block. Each is accepted only if it is what the entry, or the other half, says.
RegionReader::BlockPointer RegionReader::readBlock(const uint8_t* entry) const {
  auto block = std::make_shared<Block>();
  block->number = blockNumber(entry);
  auto digest = numberAt<uint64_t>(entry + 16);
  auto fingerprints =
      options_.packs->read(numberAt<uint32_t>(entry + 8), numberAt<uint32_t>(entry + 12), [&](const uint8_t* bytes) {
        return fingerprint(bytes) == digest ? nullptr : "a manifest block does not match its digest";
      });
  memcpy(block->fingerprints, fingerprints.bytes, kPageBytes);

  uint64_t pages = std::min<uint64_t>(
      kBlockPages, (options_.sizeBytes + kPageBytes - 1) / kPageBytes - uint64_t{block->number} * kBlockPages);
  auto check = [&](const uint8_t* bytes) -> const char* {
    memcpy(block->places, bytes, kPageBytes);
    uint32_t count = 0, end = 0;
    for (uint32_t i = 0; i < kBlockPages; i++) {
      const auto& place = block->places[i];
      bool isZero = block->fingerprints[i] == 0;
      if (isZero != (place.pack == 0) || (isZero && place.chunk != 0))
        return "the places of a manifest block do not match its fingerprints";
      if (isZero) continue;
      count++;
      end = i + 1;
    }
    if (count != numberAt<uint16_t>(entry + 28))
      return "a manifest block does not have the number of pages that its snapshot lists";
    return end <= pages ? nullptr : "a manifest block has pages beyond the end of its region";
  };
  options_.packs->read(numberAt<uint32_t>(entry), numberAt<uint32_t>(entry + 4), check);
  return block;
}

RegionReader::BlockPointer RegionReader::blockOf(uint32_t number) {
  const uint8_t* entry = entryOf(number);
  if (entry == options_.blocks.data() + options_.blocks.size() || blockNumber(entry) != number) return nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = cached_.find(number);
    if (it != cached_.end()) {
      order_.splice(order_.begin(), order_, it->second);
      return *it->second;
    }
  }
  auto block = readBlock(entry);
  std::lock_guard<std::mutex> lock(mutex_);
  if (cached_.count(number) != 0) return block;  // another thread has read it meanwhile
  if (cached_.size() >= kCachedBlocks) {
    cached_.erase(order_.back()->number);
    order_.pop_back();
  }
  order_.push_front(block);
  cached_.emplace(number, order_.begin());
  return block;
}

// Its places may have led to the wrong pages: only pages prove them. So a page that fails takes its block along, and the
// next attempt reads both again, from the packs as they are then.
void RegionReader::forget(uint32_t number) {
  options_.packs->forget(numberAt<uint32_t>(entryOf(number)));
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = cached_.find(number);
  if (it == cached_.end()) return;
  order_.erase(it->second);
  cached_.erase(it);
}

// A page of a block that is not zero.
PackDirectory::Chunk RegionReader::chunkOf(const Block& block, uint64_t page) {
  const auto& place = block.places[page];
  try {
    return options_.packs->read(place.pack, place.chunk, [&](const uint8_t* bytes) {
      return fingerprint(bytes) == block.fingerprints[page] ? nullptr : kWrongPage;
    });
  } catch (const ReadFailure&) {
    forget(block.number);
    throw;
  }
}

// Reads a part of a page of a block.
void RegionReader::readPage(const Block& block, uint64_t page, size_t skip, uint8_t* into, size_t length) {
  if (block.places[page].pack == 0)
    memset(into, 0, length);
  else
    memcpy(into, chunkOf(block, page).bytes + skip, length);
}

void RegionReader::readPages(uint64_t offset, uint8_t* into, size_t length) {
  BlockPointer block;
  uint64_t current = UINT64_MAX;
  while (length > 0) {
    uint64_t number = offset / kBlockBytes;
    if (number != current) {
      block = blockOf(static_cast<uint32_t>(number));
      current = number;
    }
    uint64_t within = offset % kBlockBytes;
    if (block == nullptr) {
      size_t zeros = std::min<uint64_t>(length, kBlockBytes - within);
      memset(into, 0, zeros);
      offset += zeros, into += zeros, length -= zeros;
      continue;
    }
    size_t skip = within % kPageBytes;
    size_t count = std::min<uint64_t>(length, kPageBytes - skip);
    readPage(*block, within / kPageBytes, skip, into, count);
    offset += count, into += count, length -= count;
  }
}

size_t RegionReader::blockCount() const { return options_.blocks.size() / kEntryBytes; }

uint64_t RegionReader::pageCount() const { return (options_.sizeBytes + kPageBytes - 1) / kPageBytes; }

uint32_t RegionReader::pagesListed(size_t index) const {
  return numberAt<uint16_t>(options_.blocks.data() + index * kEntryBytes + 28);
}

void RegionReader::readPlaces(size_t index, std::vector<Place>& into) const {
  auto block = readBlock(options_.blocks.data() + index * kEntryBytes);
  for (uint32_t i = 0; i < kBlockPages; i++) {
    const auto& [pack, chunk] = block->places[i];
    if (pack != 0) into.push_back({block->number * kBlockPages + i, pack, chunk, block->fingerprints[i]});
  }
}

PackDirectory::Chunk RegionReader::readChunk(uint64_t page) {
  if (page >= pageCount()) return {nullptr, nullptr};
  auto block = blockOf(static_cast<uint32_t>(page / kBlockPages));
  if (block == nullptr || block->places[page % kBlockPages].pack == 0) return {nullptr, nullptr};
  return chunkOf(*block, page % kBlockPages);
}

template <class Work>
int RegionReader::guarded(Work work) {
  try {
    work();
    return 0;
  } catch (const ReadFailure& failure) {
    std::lock_guard<std::mutex> lock(mutex_);
    failure_ = failure;
    return failure.err;
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
}

int RegionReader::read(uint64_t offset, uint8_t* into, size_t length) {
  size_t inside = offset >= options_.sizeBytes ? 0 : std::min<uint64_t>(length, options_.sizeBytes - offset);
  memset(into + inside, 0, length - inside);
  return guarded([&] { readPages(offset, into, inside); });
}

int RegionReader::dataPages(uint32_t number, uint8_t* into) {
  memset(into, 0, kBlockPages / 8);
  return guarded([&] {
    auto block = blockOf(number);
    if (block == nullptr) return;
    for (uint32_t i = 0; i < kBlockPages; i++)
      if (block->places[i].pack != 0) into[i / 8] |= static_cast<uint8_t>(1 << i % 8);
  });
}

std::optional<ReadFailure> RegionReader::lastFailure() {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

static Registry<RegionReader>& readers() {
  static auto* registry = new Registry<RegionReader>();
  return *registry;
}

std::shared_ptr<RegionReader> findRegionReader(uint32_t handle) { return readers().find(handle); }

std::shared_ptr<RegionReader> regionReaderArg(const Napi::CallbackInfo& info, size_t index) {
  auto reader = findRegionReader(static_cast<uint32_t>(integerArg(info, index, 0, UINT32_MAX)));
  if (!reader) throwGone(info.Env());
  return reader;
}

// Copies pairs of pack number and generation.
static std::vector<uint32_t> pairsArg(const Napi::CallbackInfo& info, size_t index) {
  const char* what = "generations are not pairs in a Uint32Array";
  auto [data, count] = elementsArg(info, index, napi_uint32_array, what);
  if (count % 2 != 0) throwContract(info.Env(), what);
  auto* numbers = static_cast<const uint32_t*>(data);
  return std::vector<uint32_t>(numbers, numbers + count);
}

// regionOpen(packsDir, sizeBytes, blocks, generations, fingerprintBits) → handle
static Napi::Value regionOpen(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) throwContract(info.Env(), "the path is not a string");
  std::string path = info[0].As<Napi::String>().Utf8Value();
  auto size = static_cast<uint64_t>(integerArg(info, 1, 0, kMaxRegionBytes));
  Bytes given = bytesArg(info, 2);
  std::vector<uint8_t> blocks(given.data, given.data + given.length);
  if (!RegionReader::isValid(blocks, size)) throwContract(info.Env(), "an entry of the manifest blocks is not valid");
  auto generations = pairsArg(info, 3);
  int64_t bits = integerArg(info, 4, 1, 64);
  auto packs = PackDirectory::open(path.c_str());
  if (packs == nullptr) throwErrno(info.Env(), "open", errno);
  for (size_t i = 0; i + 1 < generations.size(); i += 2) packs->hint(generations[i], generations[i + 1]);
  uint64_t mask = bits == 64 ? UINT64_MAX : (uint64_t{1} << bits) - 1;
  auto reader = std::make_shared<RegionReader>(RegionReader::Options{packs, size, std::move(blocks), mask});
  return Napi::Number::New(info.Env(), readers().add(std::move(reader)));
}

// regionClose(reader)
static void regionClose(const Napi::CallbackInfo& info) {
  readers().remove(static_cast<uint32_t>(integerArg(info, 0, 0, UINT32_MAX)));
}

// regionRead(reader, offset, into) → 0 or an errno value
static Napi::Value regionRead(const Napi::CallbackInfo& info) {
  auto reader = regionReaderArg(info, 0);
  auto offset = static_cast<uint64_t>(integerArg(info, 1, 0, int64_t{1} << 53));
  Bytes into = bytesArg(info, 2);
  return Napi::Number::New(info.Env(), reader->read(offset, into.data, into.length));
}

// regionHasData(reader, offset, length) → boolean
static Napi::Value regionHasData(const Napi::CallbackInfo& info) {
  auto reader = regionReaderArg(info, 0);
  auto offset = static_cast<uint64_t>(integerArg(info, 1, 0, int64_t{1} << 53));
  auto length = static_cast<uint64_t>(integerArg(info, 2, 0, int64_t{1} << 53));
  return Napi::Boolean::New(info.Env(), reader->hasData(offset, length));
}

// regionDataPages(reader, block, into) → 0 or an errno value. `into`: 64 bytes.
static Napi::Value regionDataPages(const Napi::CallbackInfo& info) {
  auto reader = regionReaderArg(info, 0);
  auto block = static_cast<uint32_t>(integerArg(info, 1, 0, UINT32_MAX));
  Bytes into = bytesArg(info, 2);
  if (into.length != kBlockPages / 8) throwContract(info.Env(), "the bits of a block take 64 bytes");
  return Napi::Number::New(info.Env(), reader->dataPages(block, into.data));
}

// regionError(reader) → [errno, file, offset, why] | null. `offset` −1: the whole file.
static Napi::Value regionError(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto failure = regionReaderArg(info, 0)->lastFailure();
  if (!failure) return env.Null();
  auto parts = Napi::Array::New(env, 4);
  parts.Set(0u, Napi::Number::New(env, failure->err));
  parts.Set(1u, Napi::String::New(env, failure->file));
  parts.Set(2u, Napi::Number::New(env, static_cast<double>(failure->offset)));
  parts.Set(3u, Napi::String::New(env, failure->why));
  return parts;
}

void initRegionReader(Napi::Env env, Napi::Object exports) {
  exports.Set("regionOpen", Napi::Function::New(env, regionOpen));
  exports.Set("regionClose", Napi::Function::New(env, regionClose));
  exports.Set("regionRead", Napi::Function::New(env, regionRead));
  exports.Set("regionHasData", Napi::Function::New(env, regionHasData));
  exports.Set("regionDataPages", Napi::Function::New(env, regionDataPages));
  exports.Set("regionError", Napi::Function::New(env, regionError));
}

}  // namespace livesnap
