// The operations of the I/O engine: reads and writes of files straight on memories, and verified reads from a store
// (src/native/block-io.ts). io_engine.h has its threads.
//
// Threads: operations are submitted and completions taken on JS threads, which never wait for I/O here. I/O threads run
// the operations, without JavaScript.
//
// Invariants:
// - A memory range is checked when it is submitted. The operation holds the memory, and its reader, until it has ended.
// - File descriptors are the caller's, who closes them after the completion.
// - Transfers are complete: short reads and writes and EINTR are continued. Bytes after the end of a file are zeros.
#pragma once
#include <napi.h>

namespace livesnap {
void initBlockIo(Napi::Env env, Napi::Object exports);
}
