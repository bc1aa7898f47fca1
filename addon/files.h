#pragma once
#include <napi.h>
#include <sys/types.h>

namespace livesnap {

// Finds the first range of data at or after `from` (lseek(2), SEEK_DATA). Moves the descriptor's position. 0: it is found;
// ENXIO: only holes follow; else another errno value. EINVAL: the file does not know its holes. Any thread.
int findData(int fd, off_t from, off_t* begin, off_t* end);

void initFiles(Napi::Env env, Napi::Object exports);
}  // namespace livesnap
