/*
 * The recorder: a library for LD_PRELOAD that sees every call by which a process changes files below one directory,
 * "the disk". It writes the calls to a trace, in the order in which the kernel was asked. It can make the n-th call
 * fail, or kill the process there. Test equipment: nothing in src/ knows of it.
 *
 *   LIVESNAP_DISK    the directory, an absolute path without links
 *   LIVESNAP_TRACE   where to append records; unset: nothing is recorded
 *   LIVESNAP_MARKS   a file outside the disk; what the program writes to it is recorded as a mark
 *   LIVESNAP_FAULT   CLASSES:N:ACTION:TIMES, for example wsd:17:EIO:once
 *                    CLASSES  of w (write, truncate), s (fsync of a file), d (fsync of a directory), r (rename, link),
 *                             u (unlink, rmdir), c (a file or directory is made), o (an existing file is opened)
 *                    N        the N-th call of these classes, from 1
 *                    ACTION   ENOSPC, EIO, EMFILE, before (SIGKILL instead of the call), after (SIGKILL after it)
 *                    TIMES    once, or always: that call and all later ones of these classes
 *   LIVESNAP_UNREADABLE  a file, relative to the disk: every read of it fails with EIO
 *   LIVESNAP_UNOPENABLE  a file, relative to the disk: opening it fails with EIO
 *
 * Threads: any thread of the program.
 *
 * Invariants:
 * - Every system call is made raw, so nothing recurses.
 * - A call and its record are made under one lock, so the records of all threads are in a possible order of the calls.
 *   Processes that share a trace share the lock, by flock(2) on it.
 * - A file is known by its inode number, a name by its path. There is no table of descriptors to keep in step.
 * - SQLite's shared memory (-shm) is left out: the first to open the database after a crash makes it again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

/* The kinds of records; test/crash/trace.ts has the same list. */
enum {
  WRITE = 1,    /* inode, offset; the bytes */
  TRUNCATE,     /* inode, size */
  SYNC,         /* inode */
  SYNC_FAILED,  /* inode */
  CREATE,       /* inode; path */
  MAKE_DIR,     /* inode; path */
  RENAME,       /* path, path */
  LINK,         /* path, path */
  UNLINK,       /* path */
  REMOVE_DIR,   /* path */
  MARK,         /* the bytes */
  ALLOCATE,     /* inode, offset, size: the file is at least so long */
  UNSUPPORTED,  /* the name of the call */
};

struct header {
  uint32_t kind;
  uint32_t first_bytes;
  uint32_t second_bytes;
  uint32_t zero;
  uint64_t inode;
  uint64_t offset;
  uint64_t size;
};

static char disk[PATH_MAX];
static size_t disk_length;
static char marks[PATH_MAX];
static int trace = -1;
static int watching;

static char unreadable[PATH_MAX];
static char unopenable[PATH_MAX];

static char fault_classes[16];
static long fault_at;
static int fault_errno;
static int fault_kill; /* 'b' or 'a' */
static int fault_always;
static long calls;

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

/* Runs before main, on the thread that loads the library. */
__attribute__((constructor)) static void begin(void) {
  const char *dir = getenv("LIVESNAP_DISK");
  if (!dir || dir[0] != '/' || strlen(dir) >= sizeof disk) return;
  strcpy(disk, dir);
  disk_length = strlen(disk);
  const char *mark = getenv("LIVESNAP_MARKS");
  if (mark && strlen(mark) < sizeof marks) strcpy(marks, mark);
  const char *bad = getenv("LIVESNAP_UNREADABLE");
  if (bad && strlen(bad) < sizeof unreadable) strcpy(unreadable, bad);
  const char *shut = getenv("LIVESNAP_UNOPENABLE");
  if (shut && strlen(shut) < sizeof unopenable) strcpy(unopenable, shut);
  const char *to = getenv("LIVESNAP_TRACE");
  if (to) {
    int fd = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    trace = fd < 0 ? -1 : syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 500);
    if (fd >= 0) syscall(SYS_close, fd);
    if (trace < 0) abort();
  }
  const char *fault = getenv("LIVESNAP_FAULT");
  char action[16] = "", times[16] = "";
  if (fault) {
    if (sscanf(fault, "%15[wsdruco]:%ld:%15[A-Za-z]:%15[a-z]", fault_classes, &fault_at, action, times) != 4) abort();
    fault_always = !strcmp(times, "always");
    if (!strcmp(action, "ENOSPC")) fault_errno = ENOSPC;
    else if (!strcmp(action, "EIO")) fault_errno = EIO;
    else if (!strcmp(action, "EMFILE")) fault_errno = EMFILE;
    else if (!strcmp(action, "before")) fault_kill = 'b';
    else if (!strcmp(action, "after")) fault_kill = 'a';
    else abort();
  }
  watching = 1;
}

static void lock(void) {
  pthread_mutex_lock(&order);
  if (trace >= 0) while (syscall(SYS_flock, trace, LOCK_EX) < 0 && errno == EINTR) {}
}

static void unlock(void) {
  int error = errno;
  if (trace >= 0) syscall(SYS_flock, trace, LOCK_UN);
  pthread_mutex_unlock(&order);
  errno = error;
}

static void die(void) {
  syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
  for (;;) syscall(SYS_pause);
}

static void record(uint32_t kind, uint64_t inode, uint64_t offset, uint64_t size, const void *first,
                   size_t first_bytes, const void *second, size_t second_bytes) {
  if (trace < 0) return;
  struct header header = {kind, first_bytes, second_bytes, 0, inode, offset, size};
  struct iovec parts[3] = {{&header, sizeof header}, {(void *)first, first_bytes}, {(void *)second, second_bytes}};
  ssize_t all = sizeof header + first_bytes + second_bytes;
  if (syscall(SYS_writev, trace, parts, 3) != all) abort();
}

static void record_path(uint32_t kind, uint64_t inode, const char *path) {
  record(kind, inode, 0, 0, path, strlen(path), NULL, 0);
}

/* Called with the lock held, before the call. Returns the errno to fail with, or 0. */
static int fault(char class) {
  if (!fault_at || !strchr(fault_classes, class)) return 0;
  calls++;
  if (calls < fault_at || (calls > fault_at && !fault_always)) return 0;
  if (fault_kill == 'b') die();
  return fault_errno;
}

/* Called with the lock held, after a successful call. */
static void done(char class) {
  if (fault_kill == 'a' && calls == fault_at && strchr(fault_classes, class)) die();
}

static int is_shared_memory(const char *path) {
  size_t length = strlen(path);
  return length > 4 && !strcmp(path + length - 4, "-shm");
}

/* The path below the disk, or NULL. `path` is absolute. */
static const char *below(const char *path) {
  if (strncmp(path, disk, disk_length) || (path[disk_length] != '/' && path[disk_length] != 0)) return NULL;
  if (is_shared_memory(path)) return NULL;
  return path[disk_length] ? path + disk_length + 1 : "";
}

static int path_of(int fd, char *into) {
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = syscall(SYS_readlink, link, into, PATH_MAX - 1);
  if (length < 0) return 0;
  into[length] = 0;
  static const char gone[] = " (deleted)";
  if ((size_t)length > sizeof gone && !strcmp(into + length - (sizeof gone - 1), gone))
    into[length - (sizeof gone - 1)] = 0;
  return 1;
}

/* Whether the descriptor's file is on the disk. */
static int watched(int fd) {
  char path[PATH_MAX];
  return watching && fd >= 0 && fd != trace && path_of(fd, path) && below(path) != NULL;
}

static int is_marks(int fd) {
  char path[PATH_MAX];
  return watching && marks[0] && fd >= 0 && path_of(fd, path) && !strcmp(path, marks);
}

static int is_unreadable(int fd) {
  char path[PATH_MAX];
  if (!watching || !unreadable[0] || fd < 0 || !path_of(fd, path)) return 0;
  const char *name = below(path);
  return name && !strcmp(name, unreadable);
}

static uint64_t inode_of(int fd) {
  struct stat found;
  return syscall(SYS_fstat, fd, &found) ? 0 : found.st_ino;
}

/* Makes a path absolute, without `.`, `..` and double slashes. Returns the path below the disk, or NULL. */
static const char *resolve(int at, const char *path, char *into) {
  if (!watching || !path) return NULL;
  char whole[2 * PATH_MAX];
  if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
  else {
    char base[PATH_MAX];
    if (at == AT_FDCWD) {
      if (syscall(SYS_getcwd, base, sizeof base) < 0) return NULL;
    } else if (!path_of(at, base)) return NULL;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
  }
  size_t length = 0;
  for (const char *part = whole; *part;) {
    while (*part == '/') part++;
    size_t part_length = strcspn(part, "/");
    if (part_length == 2 && part[0] == '.' && part[1] == '.') {
      while (length > 0 && into[--length] != '/') {}
    } else if (part_length > 0 && !(part_length == 1 && part[0] == '.')) {
      if (length + part_length + 2 > PATH_MAX) return NULL;
      into[length++] = '/';
      memcpy(into + length, part, part_length);
      length += part_length;
    }
    part += part_length;
  }
  into[length] = 0;
  return below(into);
}

#define FAIL(code)  \
  do {              \
    errno = (code); \
    return -1;      \
  } while (0)

/* Opening */

static int open_any(int at, const char *path, int flags, mode_t mode) {
  char whole[PATH_MAX];
  const char *name = resolve(at, path, whole);
  if (!name || (flags & O_TMPFILE) == O_TMPFILE) return syscall(SYS_openat, at, path, flags, mode);
  if (unopenable[0] && !strcmp(name, unopenable)) FAIL(EIO);
  lock();
  struct stat found;
  int is_new = (flags & O_CREAT) && syscall(SYS_newfstatat, AT_FDCWD, whole, &found, AT_SYMLINK_NOFOLLOW) < 0;
  char class = is_new ? 'c' : 'o';
  int code = fault(class);
  int fd = code ? -1 : (int)syscall(SYS_openat, at, path, flags, mode);
  int error = code ? code : errno;
  if (fd >= 0) {
    if (is_new) record_path(CREATE, inode_of(fd), name);
    else if (flags & O_TRUNC) record(TRUNCATE, inode_of(fd), 0, 0, NULL, 0, NULL, 0);
    done(class);
  }
  unlock();
  if (fd < 0) errno = error;
  return fd;
}

#define MODE(flags, mode)                            \
  mode_t mode = 0;                                   \
  if ((flags) & (O_CREAT | __O_TMPFILE)) {           \
    va_list list;                                    \
    va_start(list, flags);                           \
    mode = va_arg(list, int);                        \
    va_end(list);                                    \
  }

API int open(const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_any(AT_FDCWD, path, flags, mode);
}
API int open64(const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_any(AT_FDCWD, path, flags, mode);
}
API int openat(int at, const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_any(at, path, flags, mode);
}
API int openat64(int at, const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_any(at, path, flags, mode);
}
API int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
API int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
API int __openat_2(int at, const char *path, int flags) { return open_any(at, path, flags, 0); }
API int __openat64_2(int at, const char *path, int flags) { return open_any(at, path, flags, 0); }
API int creat(const char *path, mode_t mode) {
  return open_any(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
API int creat64(const char *path, mode_t mode) {
  return open_any(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

/* Writing */

/* offset < 0: at the file's current position. */
static ssize_t write_any(int fd, const struct iovec *parts, int count, off_t offset) {
  if (is_marks(fd)) {
    lock();
    ssize_t got = syscall(SYS_writev, fd, parts, count);
    if (count == 1 && got > 0) record(MARK, 0, 0, 0, parts[0].iov_base, got, NULL, 0);
    else record_path(UNSUPPORTED, 0, "a mark in several parts");
    unlock();
    return got;
  }
  if (!watched(fd)) {
    return offset < 0 ? syscall(SYS_writev, fd, parts, count)
                      : syscall(SYS_pwritev, fd, parts, count, (unsigned long)offset, 0UL);
  }
  lock();
  int code = fault('w');
  if (code) {
    unlock();
    FAIL(code);
  }
  off_t at = offset;
  if (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) {
    struct stat found;
    at = syscall(SYS_fstat, fd, &found) ? 0 : found.st_size;
  } else if (offset < 0) at = syscall(SYS_lseek, fd, 0, SEEK_CUR);
  ssize_t got = offset < 0 ? syscall(SYS_writev, fd, parts, count)
                           : syscall(SYS_pwritev, fd, parts, count, (unsigned long)offset, 0UL);
  int error = errno;
  uint64_t inode = inode_of(fd);
  ssize_t left = got;
  for (int i = 0; i < count && left > 0; i++) {
    size_t part = parts[i].iov_len < (size_t)left ? parts[i].iov_len : (size_t)left;
    if (part > 0) record(WRITE, inode, at, 0, parts[i].iov_base, part, NULL, 0);
    at += part;
    left -= part;
  }
  done('w');
  unlock();
  errno = error;
  return got;
}

static ssize_t write_one(int fd, const void *bytes, size_t length, off_t offset) {
  struct iovec part = {(void *)bytes, length};
  return write_any(fd, &part, 1, offset);
}

API ssize_t write(int fd, const void *bytes, size_t length) { return write_one(fd, bytes, length, -1); }
API ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return write_one(fd, bytes, length, at); }
API ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  return write_one(fd, bytes, length, at);
}
API ssize_t writev(int fd, const struct iovec *parts, int count) { return write_any(fd, parts, count, -1); }
API ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  return write_any(fd, parts, count, at);
}
API ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
  return write_any(fd, parts, count, at);
}
API ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
  return write_any(fd, parts, count, at);
}
API ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
  return write_any(fd, parts, count, at);
}

static int truncate_open(int fd, off_t size) {
  if (!watched(fd)) return syscall(SYS_ftruncate, fd, size);
  lock();
  int code = fault('w');
  int got = code ? -1 : (int)syscall(SYS_ftruncate, fd, size);
  int error = code ? code : errno;
  if (got == 0) {
    record(TRUNCATE, inode_of(fd), 0, size, NULL, 0, NULL, 0);
    done('w');
  }
  unlock();
  if (got < 0) errno = error;
  return got;
}
API int ftruncate(int fd, off_t size) { return truncate_open(fd, size); }
API int ftruncate64(int fd, off64_t size) { return truncate_open(fd, size); }

static int truncate_named(const char *path, off_t size) {
  char whole[PATH_MAX];
  if (!resolve(AT_FDCWD, path, whole)) return syscall(SYS_truncate, path, size);
  int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  int got = truncate_open(fd, size);
  int error = errno;
  syscall(SYS_close, fd);
  errno = error;
  return got;
}
API int truncate(const char *path, off_t size) { return truncate_named(path, size); }
API int truncate64(const char *path, off64_t size) { return truncate_named(path, size); }

static int allocate(int fd, int mode, off_t offset, off_t length) {
  if (!watched(fd)) return syscall(SYS_fallocate, fd, mode, offset, length);
  lock();
  int code = fault('w');
  int got = code ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, length);
  int error = code ? code : errno;
  if (got == 0) {
    if (mode == 0) record(ALLOCATE, inode_of(fd), offset, length, NULL, 0, NULL, 0);
    else if (mode != FALLOC_FL_KEEP_SIZE) record_path(UNSUPPORTED, 0, "fallocate with a mode");
    done('w');
  }
  unlock();
  if (got < 0) errno = error;
  return got;
}
API int fallocate(int fd, int mode, off_t offset, off_t length) { return allocate(fd, mode, offset, length); }
API int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return allocate(fd, mode, offset, length); }
API int posix_fallocate(int fd, off_t offset, off_t length) { return allocate(fd, 0, offset, length) ? errno : 0; }
API int posix_fallocate64(int fd, off64_t offset, off64_t length) {
  return allocate(fd, 0, offset, length) ? errno : 0;
}

/* Reading */

#define READ(fd, number, ...)                  \
  do {                                         \
    if (is_unreadable(fd)) FAIL(EIO);          \
    return syscall(number, fd, ##__VA_ARGS__); \
  } while (0)

API ssize_t read(int fd, void *bytes, size_t length) { READ(fd, SYS_read, bytes, length); }
API ssize_t pread(int fd, void *bytes, size_t length, off_t at) { READ(fd, SYS_pread64, bytes, length, at); }
API ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) { READ(fd, SYS_pread64, bytes, length, at); }
API ssize_t readv(int fd, const struct iovec *parts, int count) { READ(fd, SYS_readv, parts, count); }
API ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) {
  READ(fd, SYS_preadv, parts, count, at, 0UL);
}
API ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t at) {
  READ(fd, SYS_preadv, parts, count, at, 0UL);
}

/* Syncing */

static int sync_any(long number, int fd) {
  if (!watched(fd)) return syscall(number, fd);
  lock();
  struct stat found;
  char class = syscall(SYS_fstat, fd, &found) == 0 && S_ISDIR(found.st_mode) ? 'd' : 's';
  int code = fault(class);
  int got = code ? -1 : (int)syscall(number, fd);
  int error = code ? code : errno;
  record(got == 0 ? SYNC : SYNC_FAILED, found.st_ino, 0, 0, NULL, 0, NULL, 0);
  if (got == 0) done(class);
  unlock();
  if (got < 0) errno = error;
  return got;
}
API int fsync(int fd) { return sync_any(SYS_fsync, fd); }
API int fdatasync(int fd) { return sync_any(SYS_fdatasync, fd); }
/* Not recorded: it promises nothing about metadata, so it makes nothing durable. */
API int sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags) {
  return syscall(SYS_sync_file_range, fd, offset, length, flags);
}

/* Names */

static int two_names(uint32_t kind, int from_at, const char *from, int to_at, const char *to, unsigned flags) {
  char from_whole[PATH_MAX], to_whole[PATH_MAX];
  const char *from_name = resolve(from_at, from, from_whole);
  const char *to_name = resolve(to_at, to, to_whole);
  long number = kind == RENAME ? SYS_renameat2 : SYS_linkat;
  if (!from_name && !to_name) return syscall(number, from_at, from, to_at, to, flags);
  lock();
  int code = fault('r');
  int got = code ? -1 : (int)syscall(number, from_at, from, to_at, to, flags);
  int error = code ? code : errno;
  if (got == 0) {
    if (!from_name || !to_name || (kind == RENAME && flags & ~RENAME_NOREPLACE))
      record_path(UNSUPPORTED, 0, "a rename or link out of or into the disk, or an exchange");
    else record(kind, 0, 0, 0, from_name, strlen(from_name), to_name, strlen(to_name));
    done('r');
  }
  unlock();
  if (got < 0) errno = error;
  return got;
}
API int rename(const char *from, const char *to) { return two_names(RENAME, AT_FDCWD, from, AT_FDCWD, to, 0); }
API int renameat(int from_at, const char *from, int to_at, const char *to) {
  return two_names(RENAME, from_at, from, to_at, to, 0);
}
API int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
  return two_names(RENAME, from_at, from, to_at, to, flags);
}
API int link(const char *from, const char *to) { return two_names(LINK, AT_FDCWD, from, AT_FDCWD, to, 0); }
API int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
  return two_names(LINK, from_at, from, to_at, to, flags);
}

static int remove_name(int at, const char *path, int flags) {
  char whole[PATH_MAX];
  const char *name = resolve(at, path, whole);
  if (!name) return syscall(SYS_unlinkat, at, path, flags);
  lock();
  /* Removing a missing name changes nothing: such a call is neither counted nor made to fail. */
  struct stat found;
  int is_there = syscall(SYS_newfstatat, AT_FDCWD, whole, &found, AT_SYMLINK_NOFOLLOW) == 0;
  int code = is_there ? fault('u') : 0;
  int got = code ? -1 : (int)syscall(SYS_unlinkat, at, path, flags);
  int error = code ? code : errno;
  if (got == 0) {
    record_path(flags & AT_REMOVEDIR ? REMOVE_DIR : UNLINK, 0, name);
    done('u');
  }
  unlock();
  if (got < 0) errno = error;
  return got;
}
API int unlink(const char *path) { return remove_name(AT_FDCWD, path, 0); }
API int unlinkat(int at, const char *path, int flags) { return remove_name(at, path, flags); }
API int rmdir(const char *path) { return remove_name(AT_FDCWD, path, AT_REMOVEDIR); }
API int remove(const char *path) {
  int got = remove_name(AT_FDCWD, path, 0);
  return got < 0 && errno == EISDIR ? remove_name(AT_FDCWD, path, AT_REMOVEDIR) : got;
}

static int make_directory(int at, const char *path, mode_t mode) {
  char whole[PATH_MAX];
  const char *name = resolve(at, path, whole);
  if (!name) return syscall(SYS_mkdirat, at, path, mode);
  lock();
  struct stat found;
  int is_there = syscall(SYS_newfstatat, AT_FDCWD, whole, &found, AT_SYMLINK_NOFOLLOW) == 0;
  int code = is_there ? 0 : fault('c');
  int got = code ? -1 : (int)syscall(SYS_mkdirat, at, path, mode);
  int error = code ? code : errno;
  if (got == 0) {
    syscall(SYS_newfstatat, AT_FDCWD, whole, &found, 0);
    record_path(MAKE_DIR, found.st_ino, name);
    done('c');
  }
  unlock();
  if (got < 0) errno = error;
  return got;
}
API int mkdir(const char *path, mode_t mode) { return make_directory(AT_FDCWD, path, mode); }
API int mkdirat(int at, const char *path, mode_t mode) { return make_directory(at, path, mode); }

/* Calls that the model of the disk cannot follow. A trace with one of these is refused. */

static void refuse(const char *what) {
  lock();
  record_path(UNSUPPORTED, 0, what);
  unlock();
}

API int symlink(const char *target, const char *path) {
  char whole[PATH_MAX];
  if (resolve(AT_FDCWD, path, whole)) refuse("symlink");
  return syscall(SYS_symlinkat, target, AT_FDCWD, path);
}
API int symlinkat(const char *target, int at, const char *path) {
  char whole[PATH_MAX];
  if (resolve(at, path, whole)) refuse("symlinkat");
  return syscall(SYS_symlinkat, target, at, path);
}
API ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags) {
  if (watched(out)) refuse("copy_file_range");
  return syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
}
API ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
  if (watched(out)) refuse("sendfile");
  return syscall(SYS_sendfile, out, in, offset, length);
}
API ssize_t sendfile64(int out, int in, off64_t *offset, size_t length) {
  if (watched(out)) refuse("sendfile");
  return syscall(SYS_sendfile, out, in, offset, length);
}
API ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags) {
  if (watched(out)) refuse("splice");
  return syscall(SYS_splice, in, in_at, out, out_at, length, flags);
}

static void *map(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
  if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && watched(fd)) refuse("a writable mapping");
  return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
API void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
  return map(at, length, protection, flags, fd, offset);
}
API void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
  return map(at, length, protection, flags, fd, offset);
}
