#include "pack_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#define XXH_INLINE_ALL
#include "third_party/lz4/lz4.h"
#include "third_party/xxhash/xxhash.h"

namespace livesnap {

static constexpr uint32_t kPackVersion = 2;
static constexpr size_t kHeaderBytes = 32, kHeaderChecksumAt = 24;
static constexpr size_t kFooterBytes = 64, kFooterChecksumAt = 56;
static constexpr size_t kFrameEntryBytes = 16;
static constexpr size_t kIdentityBytes = 8 + 32;  // fingerprint and digest
static constexpr uint64_t kMaxPackBytes = 0xffffffff;
static constexpr uint32_t kFlagLz4 = 1, kFlagLost = 4;
static constexpr uint32_t kCodecRaw = 0, kCodecLz4 = 1;
static constexpr uint32_t kDigestBlake3 = 1;  // the highest ID of a digest that this livesnap knows

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers of the format are copied as they are");

template <class T>
static T numberAt(const uint8_t* bytes) {
  T value;
  memcpy(&value, bytes, sizeof value);
  return value;
}

static size_t frameBytes(const FrameEntry& entry) {
  return kFrameHeaderBytes + size_t{2} * entry.chunks + entry.storedBytes;
}

static uint32_t codecOf(uint32_t flags) {
  uint32_t later = flags >> 8;
  return later != 0 ? later : (flags & kFlagLz4) != 0 ? kCodecLz4 : kCodecRaw;
}

// Whether the chunk count, the flags and the payload length of a frame fit together.
static bool isValidFrame(const FrameEntry& entry) {
  if (entry.chunks < 1 || entry.chunks > kFrameChunks) return false;
  uint32_t codec = codecOf(entry.flags);
  uint32_t expected = codec == kCodecLz4 ? kFlagLz4 : codec << 8;
  if ((entry.flags & (0xff00 | kFlagLz4)) != expected) return false;  // two codecs
  if ((entry.flags & kFlagLost) != 0) return entry.storedBytes == 0 && codec == kCodecRaw;
  uint32_t rawBytes = entry.chunks * static_cast<uint32_t>(kPageBytes);
  return codec == kCodecRaw ? entry.storedBytes == rawBytes : entry.storedBytes >= 1 && entry.storedBytes <= rawBytes;
}

std::string packName(uint32_t number, uint32_t generation) {
  char name[64];
  snprintf(name, sizeof name, "packs/%08x-%u.pack", number, generation);
  return name;
}

// What a failed open, fstat or read of a store's file means. Links, pipes and directories are damage of the file, and a
// file system has several ways to say that it cannot read.
static ReadFailure failureOf(int err, const std::string& file, int64_t offset) {
  switch (err) {
    case ENOENT:
      return {EBADMSG, file, -1, "the file is missing", true};
    case ELOOP:
    case ENXIO:
    case EISDIR:
    case ENODEV:
      return {EBADMSG, file, -1, "this is not a regular file"};
    case EIO:
    case EBADMSG:
    case ENODATA:
    case EUCLEAN:
      return {EIO, file, offset, "the disk cannot read it"};
    default:
      return {err, file, offset, strerrordesc_np(err) != nullptr ? strerrordesc_np(err) : "unknown error"};
  }
}

static std::atomic<uint64_t> lastSerial{0};

PackFile::PackFile(int dirFd, uint32_t number, uint32_t generation)
    : number(number), generation(generation), serial(++lastSerial), name(packName(number, generation)) {
  try {
    openFile(dirFd);
    readLists();
  } catch (...) {
    if (fd_ >= 0) close(fd_);
    throw;
  }
}

PackFile::~PackFile() {
  if (fd_ >= 0) close(fd_);
}

void PackFile::damaged(int64_t offset, const char* why) const { throw ReadFailure{EBADMSG, name, offset, why}; }

void PackFile::openFile(int dirFd) {
  const char* leaf = name.c_str() + strlen("packs/");
  do fd_ = openat(dirFd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  while (fd_ < 0 && errno == EINTR);
  if (fd_ < 0) throw failureOf(errno, name, -1);
  struct stat status;
  if (fstat(fd_, &status) < 0) throw failureOf(errno, name, -1);
  if (!S_ISREG(status.st_mode)) damaged(-1, "this is not a regular file");
  sizeBytes_ = static_cast<uint64_t>(status.st_size);
  if (sizeBytes_ < kHeaderBytes + kFooterBytes || sizeBytes_ > kMaxPackBytes)
    damaged(-1, "a pack cannot have the size of this file");
}

void PackFile::readExactly(uint8_t* into, uint64_t offset, size_t length) const {
  for (size_t done = 0; done < length;) {
    ssize_t n = pread(fd_, into + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw failureOf(errno, name, static_cast<int64_t>(offset));
    if (n == 0) damaged(static_cast<int64_t>(offset), "the file is truncated");
    done += static_cast<size_t>(n);
  }
}

static void refuseNewer(const std::string& file, uint32_t version) {
  if (version > kPackVersion)
    throw ReadFailure{EOPNOTSUPP, file, -1, "the file has format version " + std::to_string(version)};
}

void PackFile::readLists() {
  uint8_t header[kHeaderBytes];
  readExactly(header, 0, sizeof header);
  if (memcmp(header, "LIVESNPK", 8) != 0) damaged(0, "this is not a pack");
  if (XXH64(header, kHeaderChecksumAt, 0) != numberAt<uint64_t>(header + kHeaderChecksumAt))
    damaged(0, "the header does not match its checksum");
  refuseNewer(name, numberAt<uint32_t>(header + 8));
  if (numberAt<uint32_t>(header + 12) != number || numberAt<uint32_t>(header + 16) != generation)
    damaged(0, "the header is of another pack");

  uint64_t footerAt = sizeBytes_ - kFooterBytes;
  auto at = static_cast<int64_t>(footerAt);
  uint8_t footer[kFooterBytes];
  readExactly(footer, footerAt, sizeof footer);
  if (memcmp(footer, "LIVESNPT", 8) != 0) damaged(at, "the pack is not sealed: its footer is missing");
  if (XXH64(footer, kFooterChecksumAt, 0) != numberAt<uint64_t>(footer + kFooterChecksumAt))
    damaged(at, "the footer does not match its checksum");
  refuseNewer(name, numberAt<uint32_t>(footer + 8));
  if (numberAt<uint32_t>(footer + 12) != number || numberAt<uint32_t>(footer + 16) != generation)
    damaged(at, "the footer is of another pack");
  // Digests are not verified here, but a newer one may come with other lengths.
  uint32_t digest = numberAt<uint32_t>(footer + 8) == 1 ? 0 : numberAt<uint16_t>(footer + 30);
  if (digest > kDigestBlake3)
    throw ReadFailure{EOPNOTSUPP, name, -1, "the pack has digests of ID " + std::to_string(digest)};
  auto frames = numberAt<uint32_t>(footer + 20), chunks = numberAt<uint32_t>(footer + 24);
  trailerOffset_ = numberAt<uint64_t>(footer + 32);
  if (frames > chunks || chunks < 1 || chunks > kPackChunks || trailerOffset_ < kHeaderBytes ||
      trailerOffset_ > footerAt ||
      footerAt - trailerOffset_ != frames * kFrameEntryBytes + chunks * (sizeof(uint32_t) + kIdentityBytes))
    damaged(at, "the counts in the footer do not match the size of the file");

  std::vector<uint8_t> tables(frames * kFrameEntryBytes + chunks * sizeof(uint32_t));
  readExactly(tables.data(), trailerOffset_, tables.size());
  if (XXH64(tables.data(), tables.size(), 0) != numberAt<uint64_t>(footer + 40))
    damaged(static_cast<int64_t>(trailerOffset_), "the frame table does not match its checksum");
  decodeLists(tables.data(), frames, chunks);
}

void PackFile::decodeLists(const uint8_t* tables, uint32_t frames, uint32_t chunks) {
  auto trailer = static_cast<int64_t>(trailerOffset_);
  frames_.reserve(frames);
  uint64_t offset = kHeaderBytes;
  uint32_t first = 0;
  for (uint32_t i = 0; i < frames; i++) {
    const uint8_t* row = tables + i * kFrameEntryBytes;
    FrameEntry entry = {numberAt<uint32_t>(row), numberAt<uint32_t>(row + 4), numberAt<uint32_t>(row + 8),
                        numberAt<uint16_t>(row + 12), numberAt<uint16_t>(row + 14)};
    if (entry.offset != offset || entry.first != first || !isValidFrame(entry))
      damaged(trailer + static_cast<int64_t>(i * kFrameEntryBytes), "the entry of a frame is wrong");
    offset += frameBytes(entry);
    first += entry.chunks;
    frames_.push_back(entry);
  }
  if (offset != trailerOffset_ || first != chunks) damaged(trailer, "the frames do not fill the pack");

  const uint8_t* numbers = tables + frames * kFrameEntryBytes;
  numbers_.reserve(chunks);
  for (uint32_t i = 0; i < chunks; i++) {
    auto chunk = numberAt<uint32_t>(numbers + i * sizeof(uint32_t));
    if (chunk >= kPackChunks || (i > 0 && chunk <= numbers_.back())) damaged(trailer, "the chunk numbers do not ascend");
    numbers_.push_back(chunk);
  }
}

PackFile::At PackFile::find(uint32_t chunk) const {
  auto at = std::lower_bound(numbers_.begin(), numbers_.end(), chunk);
  if (at == numbers_.end() || *at != chunk)
    throw ReadFailure{EBADMSG, name, static_cast<int64_t>(trailerOffset_), "there is no chunk " + std::to_string(chunk)};
  auto position = static_cast<uint32_t>(at - numbers_.begin());
  // The last frame that begins at or before the position. The first frame begins at 0.
  auto next = std::upper_bound(frames_.begin(), frames_.end(), position,
                               [](uint32_t wanted, const FrameEntry& entry) { return wanted < entry.first; });
  auto frame = static_cast<uint32_t>(next - frames_.begin() - 1);
  return {frame, position - frames_[frame].first};
}

std::shared_ptr<const Frame> PackFile::readFrame(uint32_t index) const {
  auto stored = std::make_unique<uint8_t[]>(kMaxFrameBytes);
  auto frame = std::make_shared<Frame>(frames_[index].chunks);
  readFrame(index, frame->bytes.get(), stored.get());
  return frame;
}

void PackFile::readFrame(uint32_t index, uint8_t* into, uint8_t* bytes) const {
  const FrameEntry& entry = frames_[index];
  readExactly(bytes, entry.offset, frameBytes(entry));
  uint64_t seed = uint64_t{number} | uint64_t{index} << 32;
  if (XXH64(bytes + 8, frameBytes(entry) - 8, seed) != numberAt<uint64_t>(bytes))
    damaged(entry.offset, "the frame does not match its checksum");
  bool same = numberAt<uint32_t>(bytes + 8) == entry.storedBytes && numberAt<uint16_t>(bytes + 12) == entry.chunks &&
              numberAt<uint16_t>(bytes + 14) == entry.flags;
  for (uint32_t i = 0; same && i < entry.chunks; i++)
    same = numberAt<uint16_t>(bytes + kFrameHeaderBytes + 2 * i) == numbers_[entry.first + i];
  if (!same) damaged(entry.offset, "the frame differs from its entry in the trailer");
  if ((entry.flags & kFlagLost) != 0) damaged(entry.offset, "chunks were lost here");

  const uint8_t* payload = bytes + kFrameHeaderBytes + 2 * entry.chunks;
  auto rawBytes = static_cast<int>(entry.chunks * kPageBytes);
  switch (codecOf(entry.flags)) {
    case kCodecRaw:
      memcpy(into, payload, static_cast<size_t>(rawBytes));
      return;
    case kCodecLz4:
      if (LZ4_decompress_safe(reinterpret_cast<const char*>(payload), reinterpret_cast<char*>(into),
                              static_cast<int>(entry.storedBytes), rawBytes) != rawBytes)
        damaged(entry.offset, "the payload is not valid LZ4 data");
      return;
    default:
      throw ReadFailure{EOPNOTSUPP, name, entry.offset,
                        "the frame is compressed by codec " + std::to_string(codecOf(entry.flags))};
  }
}

}  // namespace livesnap
