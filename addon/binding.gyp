{
  "targets": [
    {
      "target_name": "livesnap",
      "sources": [
        "addon.cc",
        "errors.cc",
        "events.cc",
        "exits.cc",
        "files.cc",
        "locks.cc",
        "machine.cc",
        "mapped_file.cc",
        "memory.cc",
        "pages.cc",
        "third_party/lz4/lz4.c",
        "vcpu_thread.cc"
      ],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_DISABLE_DEPRECATED", "_GNU_SOURCE", "_FILE_OFFSET_BITS=64"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
      "cflags_cc": ["-std=c++17", "-fno-rtti"],
      "cflags_cc!": ["-fno-exceptions"],
      "cflags!": ["-fno-exceptions"]
    }
  ]
}
