#!/usr/bin/env bash
# Compiles the RocksDB sources that librocksdb-sys carries into one static library, once per machine.
#
# The crate's own build script compiles each of 344 C++ files alone: ten minutes of two cores, again for
# every profile and every change of its build dependencies. Joined 26 files to a unit it takes three, and
# the result outlives every target folder. Prints the folder that holds librocksdb.a; pass it to cargo as
# ROCKSDB_LIB_DIR with ROCKSDB_STATIC=1. Without those two the crate compiles RocksDB itself.
set -euo pipefail

cd "$(dirname "$0")/../.."
cache=${LEVADA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/levada}
cargo fetch --locked --quiet
source_dir=$(dirname "$(cargo metadata --format-version 1 --locked |
    tr ',' '\n' | sed -n 's/.*"manifest_path":"\([^"]*librocksdb-sys-[^"]*Cargo.toml\)".*/\1/p' | head -n 1)")
[ -f "$source_dir/rocksdb_lib_sources.txt" ] || { echo "librocksdb-sys is not in Cargo.lock" >&2; exit 1; }

machine=$(uname -m)
out=$cache/$(basename "$source_dir")-$machine
if [ -f "$out/librocksdb.a" ]; then
    echo "$out"
    exit 0
fi

echo "compiling RocksDB once for this machine into $out (about three minutes on two cores)" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-std=c++20 -O2 -g0 -fPIC -w -include cstdint -DNDEBUG -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
    -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT
    -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
    "-I$source_dir/rocksdb/include" "-I$source_dir/rocksdb" "-I$source_dir")
# The level that .cargo/config.toml asks of Rust, so that checksums use the same instructions.
[ "$machine" = x86_64 ] && flags+=(-march=x86-64-v2)
[ "$machine" = aarch64 ] && flags+=(-march=armv8-a+crc+crypto)

grep -v -x 'util/build_version.cc' "$source_dir/rocksdb_lib_sources.txt" | sed "s|^|$source_dir/rocksdb/|" > "$work/sources"
echo "$source_dir/build_version.cc" >> "$work/sources"
(cd "$work" && split -l 26 -d sources list. && for list in list.*; do
    sed 's|.*|#include "&"|' "$list" > "unit${list#list}.cc"
done)
find "$work" -name 'unit.*.cc' -print0 |
    xargs -0 -P "$(nproc)" -I{} sh -c 'out=$1; shift; "${CXX:-g++}" "$@" -c "$out" -o "${out%.cc}.o"' sh {} "${flags[@]}"
mkdir -p "$out"
ar crs "$work/librocksdb.a" "$work"/unit.*.o
mv "$work/librocksdb.a" "$out/librocksdb.a.tmp"
mv "$out/librocksdb.a.tmp" "$out/librocksdb.a"
echo "$out"
