// The host's end of a virtual network device: a tap, or the stream of a user-mode network (passt).
//
// Invariants:
// - No call blocks. A frame goes to or comes from guest memory without JavaScript.
// - On a tap every frame has a virtio_net_hdr_v1 in front, which the kernel reads and writes. On a stream every frame has
//   its length in front (4 bytes, big-endian), and this file makes the header, or does what it asks for.
// - A frame that was read and did not fit is kept until there is room, so none is lost or cut.
// - A frame on a stream is accepted whole: what the socket does not take waits here.
#pragma once
#include <napi.h>

namespace livesnap {

void initNetPort(Napi::Env env, Napi::Object exports);
void initTap(Napi::Env env, Napi::Object exports);

}  // namespace livesnap
