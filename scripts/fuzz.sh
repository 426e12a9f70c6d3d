#!/bin/bash
# Runs every fuzz target for SECONDS_EACH seconds (600). Builds with the stable toolchain and plain cargo: the coverage
# passes that libFuzzer needs are stable compiler options, so neither cargo-fuzz nor a nightly compiler is wanted. A C++
# compiler is (libFuzzer is C++). With ASAN=1 and a nightly toolchain the address sanitizer is added.
#
# A finding ends the run with code 1 and its input in fuzz/artifacts/TARGET/. What the fuzzer learnt stays in
# fuzz/corpus/TARGET/ and is where the next run begins.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-600}
targets=${TARGETS:-$(sed -n 's/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml | tail -n +2)}

if ! command -v c++ >/dev/null; then
    echo "fuzz: a C++ compiler is missing (c++; Debian: apt-get install g++)" >&2
    exit 1
fi
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
toolchain=()
if [[ ${ASAN:-0} == 1 ]]; then
    toolchain=(+nightly)
    flags+=" -Zsanitizer=address"
fi
triple=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags reach the fuzzed code and not the build scripts.
RUSTFLAGS="$flags" cargo "${toolchain[@]}" build --release --manifest-path fuzz/Cargo.toml --target "$triple"

failed=0
for target in $targets; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    seeds=()
    [[ -d fuzz/seeds/$target ]] && seeds=("fuzz/seeds/$target")
    echo "== $target: $seconds s"
    if "fuzz/target/$triple/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=0 "-artifact_prefix=fuzz/artifacts/$target/" \
        "fuzz/corpus/$target" "${seeds[@]}"; then
        echo "== $target: no finding"
    else
        echo "== $target: FINDING, see fuzz/artifacts/$target" >&2
        failed=1
    fi
done
exit $failed
