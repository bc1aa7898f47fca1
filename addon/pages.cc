// Page work in batches. Runs on the calling JS thread (a store Worker); touches only the buffers it is given.
#include "pages.h"

#include "errors.h"

namespace livesnap {
void initPages(Napi::Env env, Napi::Object exports) {}
}  // namespace livesnap
