{
  "targets": [
    {
      "target_name": "livesnap",
      "sources": [
        "addon.cc",
        "blake3_pages.cc",
        "block_io.cc",
        "errors.cc",
        "events.cc",
        "exits.cc",
        "files.cc",
        "fill_functions.cc",
        "frame_encoder.cc",
        "hash_ahead.cc",
        "heap.cc",
        "idle_time.cc",
        "io_engine.cc",
        "locks.cc",
        "machine.cc",
        "mapped_file.cc",
        "memory.cc",
        "memory_fill.cc",
        "net_port.cc",
        "pack_directory.cc",
        "pack_file.cc",
        "page_pool.cc",
        "page_proof.cc",
        "pages.cc",
        "passed_files.cc",
        "region_reader.cc",
        "tap.cc",
        "third_party/blake3/blake3_avx2_x86-64_unix.S",
        "third_party/blake3/blake3_avx512_x86-64_unix.S",
        "third_party/blake3/blake3_dispatch.c",
        "third_party/blake3/blake3_portable.c",
        "third_party/blake3/blake3_sse2_x86-64_unix.S",
        "third_party/blake3/blake3_sse41_x86-64_unix.S",
        "third_party/lz4/lz4.c",
        "third_party/lz4/lz4hc.c",
        "user_fault.cc",
        "vcpu_thread.cc"
      ],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      # Without SWALLOW_UNTHROWABLE a process aborts when one of its Workers is terminated while a function here throws.
      "defines": [
        "NAPI_VERSION=8",
        "NODE_ADDON_API_DISABLE_DEPRECATED",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        "_GNU_SOURCE",
        "_FILE_OFFSET_BITS=64",
      ],
      # Node unloads an addon with the last Worker that loaded it, although native threads may still run its code.
      # Only the functions that Node calls are visible outside. So no other library of the process gets the BLAKE3 or LZ4
      # of the addon, nor the addon theirs.
      "ldflags": ["-Wl,-z,nodelete", "-Wl,--version-script=<(module_root_dir)/exports.map"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
      "cflags_cc": ["-std=c++17", "-fno-rtti"],
      "cflags_cc!": ["-fno-exceptions"],
      "cflags!": ["-fno-exceptions"]
    }
  ]
}
