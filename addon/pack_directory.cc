#include "pack_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

namespace livesnap {

static constexpr size_t kCachedFrames = 256;  // 16 MiB

// The frames of all packs that were read last. The key has the pack's serial: another generation has other frames.
namespace {
class FrameCache {
 public:
  using Key = std::pair<uint64_t, uint32_t>;

  std::shared_ptr<const Frame> find(const Key& key) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = entries_.find(key);
    if (it == entries_.end()) return nullptr;
    order_.splice(order_.begin(), order_, it->second.place);
    return it->second.frame;
  }

  void add(const Key& key, std::shared_ptr<const Frame> frame) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (entries_.count(key) != 0) return;  // another thread has read it meanwhile
    if (entries_.size() >= kCachedFrames) {
      entries_.erase(order_.back());
      order_.pop_back();
    }
    order_.push_front(key);
    entries_.emplace(key, Entry{std::move(frame), order_.begin()});
  }

 private:
  struct Entry {
    std::shared_ptr<const Frame> frame;
    std::list<Key>::iterator place;
  };
  struct Hash {
    size_t operator()(const Key& key) const { return static_cast<size_t>(key.first << 15 ^ key.second); }
  };
  std::mutex mutex_;
  std::list<Key> order_;  // the most recently used first
  std::unordered_map<Key, Entry, Hash> entries_;
};

FrameCache& frameCache() {
  static auto* cache = new FrameCache();
  return *cache;
}

// Directories that are open, by device and inode.
struct OpenDirectories {
  std::mutex mutex;
  std::map<std::pair<dev_t, ino_t>, std::weak_ptr<PackDirectory>> all;
};

OpenDirectories& openDirectories() {
  static auto* directories = new OpenDirectories();
  return *directories;
}

// A share of the process's limit, so that descriptors are left for everything else.
size_t maxOpenPacks() {
  static const size_t limit = [] {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0) return size_t{4};
    return std::clamp<size_t>(files.rlim_cur / 16, 4, 128);
  }();
  return limit;
}

bool isOutOfDescriptors(int err) { return err == EMFILE || err == ENFILE; }
}  // namespace

std::shared_ptr<PackDirectory> PackDirectory::open(const char* path) {
  int fd = ::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return nullptr;
  struct stat status;
  if (fstat(fd, &status) < 0) {
    int err = errno;
    close(fd);
    errno = err;
    return nullptr;
  }
  auto& directories = openDirectories();
  std::lock_guard<std::mutex> lock(directories.mutex);
  for (auto it = directories.all.begin(); it != directories.all.end();)
    it = it->second.expired() ? directories.all.erase(it) : std::next(it);
  auto& known = directories.all[{status.st_dev, status.st_ino}];
  if (auto directory = known.lock()) {
    close(fd);
    return directory;
  }
  std::shared_ptr<PackDirectory> directory(new PackDirectory(fd));
  known = directory;
  return directory;
}

PackDirectory::~PackDirectory() { close(fd_); }

void PackDirectory::hint(uint32_t number, uint32_t generation) {
  std::lock_guard<std::mutex> lock(mutex_);
  generations_[number] = generation;
}

std::vector<uint32_t> PackDirectory::generationsOnDisk(uint32_t number) {
  // A descriptor of its own: the position of a directory is shared by all who read from one.
  int fd = openat(fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && isOutOfDescriptors(errno)) {
    closeAll();
    fd = openat(fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  if (fd < 0) throw ReadFailure{errno, "packs", -1, "the directory cannot be opened"};
  DIR* dir = fdopendir(fd);
  if (dir == nullptr) {
    int err = errno;
    close(fd);
    throw ReadFailure{err, "packs", -1, "the directory cannot be read"};
  }
  std::vector<uint32_t> found;
  errno = 0;
  while (const dirent* entry = readdir(dir)) {
    const std::string leaf = entry->d_name;
    // Parsed, then written again: only the one right spelling of a number counts.
    if (leaf.size() < 15 || leaf.size() > 23 || leaf[8] != '-') continue;
    uint64_t generation = 0;
    size_t at = 9;
    while (at < leaf.size() && leaf[at] >= '0' && leaf[at] <= '9') generation = generation * 10 + (leaf[at++] - '0');
    if (generation <= 999999999 && "packs/" + leaf == packName(number, static_cast<uint32_t>(generation)))
      found.push_back(static_cast<uint32_t>(generation));
  }
  int err = errno;
  closedir(dir);
  if (err != 0) throw ReadFailure{err, "packs", -1, "the directory cannot be read"};
  std::sort(found.begin(), found.end());
  return found;
}

// When the process has no descriptor left, closes all packs that nobody reads, which can be opened again, and retries.
std::shared_ptr<const PackFile> PackDirectory::openWithinLimit(uint32_t number, uint32_t generation) {
  try {
    return std::make_shared<const PackFile>(fd_, number, generation);
  } catch (const ReadFailure& failure) {
    if (!isOutOfDescriptors(failure.err)) throw;
  }
  closeAll();
  return std::make_shared<const PackFile>(fd_, number, generation);
}

std::shared_ptr<const PackFile> PackDirectory::openPack(uint32_t number) {
  uint32_t generation = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = byNumber_.find(number);
    if (it != byNumber_.end()) {
      packs_.splice(packs_.begin(), packs_, it->second);
      return *it->second;
    }
    auto hinted = generations_.find(number);
    if (hinted != generations_.end()) generation = hinted->second;
  }
  auto pack = openWithinLimit(number, generation);
  keep(pack);
  return pack;
}

void PackDirectory::keep(std::shared_ptr<const PackFile> pack) {
  std::lock_guard<std::mutex> lock(mutex_);
  uint32_t number = pack->number;
  generations_[number] = pack->generation;
  auto it = byNumber_.find(number);
  if (it != byNumber_.end()) packs_.erase(it->second);
  packs_.push_front(std::move(pack));
  byNumber_[number] = packs_.begin();
  if (packs_.size() <= maxOpenPacks()) return;
  byNumber_.erase(packs_.back()->number);
  packs_.pop_back();
}

void PackDirectory::forget(uint32_t number) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = byNumber_.find(number);
  if (it == byNumber_.end()) return;
  packs_.erase(it->second);
  byNumber_.erase(it);
}

void PackDirectory::closeAll() {
  std::lock_guard<std::mutex> lock(mutex_);
  packs_.clear();
  byNumber_.clear();
}

static PackDirectory::Chunk readFrom(const PackFile& pack, uint32_t chunk, const PackDirectory::Check& check) {
  auto at = pack.find(chunk);
  FrameCache::Key key = {pack.serial, at.frame};
  auto frame = frameCache().find(key);
  if (frame == nullptr) {
    frame = pack.readFrame(at.frame);
    frameCache().add(key, frame);
  }
  const uint8_t* bytes = frame->bytes.get() + at.index * kPageBytes;
  if (const char* why = check(bytes)) throw ReadFailure{EBADMSG, pack.name, pack.frame(at.frame).offset, why};
  return {std::move(frame), bytes};
}

PackDirectory::Chunk PackDirectory::read(uint32_t number, uint32_t chunk, const Check& check) {
  std::shared_ptr<const PackFile> pack;
  ReadFailure first;
  try {
    pack = openPack(number);
    return readFrom(*pack, chunk, check);
  } catch (const ReadFailure& failure) {
    if (isOutOfDescriptors(failure.err)) throw;
    first = failure;
  }
  pack = nullptr;  // here and below: its descriptor may be the last one
  for (uint32_t generation : generationsOnDisk(number)) {
    try {
      pack = openWithinLimit(number, generation);
      auto found = readFrom(*pack, chunk, check);
      keep(pack);
      return found;
    } catch (const ReadFailure& failure) {
      if (isOutOfDescriptors(failure.err)) throw;
      // What a file that is there says tells more than that another one is missing.
      if (first.missing) first = failure;
      pack = nullptr;
    }
  }
  throw first;
}

}  // namespace livesnap
