#!/bin/bash
# Runs every fuzz target for SECONDS_EACH seconds (600). Builds with the stable toolchain and plain cargo: the coverage
# passes that libFuzzer needs are stable compiler options, so neither cargo-fuzz nor a nightly compiler is wanted. A C++
# compiler is (libFuzzer is C++). With ASAN=1 and a nightly toolchain the address sanitizer is added.
#
# A finding ends the run with code 1 and its input in fuzz/artifacts/TARGET/. What the fuzzer learnt stays in
# fuzz/corpus/TARGET/ and is where the next run begins. TARGETS="a b" runs these alone, BUILD=0 what is built already.
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
[[ ${BUILD:-1} == 0 ]] || RUSTFLAGS="$flags" cargo "${toolchain[@]}" build --release --manifest-path fuzz/Cargo.toml --target "$triple"

# The last figure of a kind in the fuzzer's own log.
figure() { sed -n "s/.*$2: *\([0-9][0-9]*\).*/\1/p" "$1" | tail -1; }

failed=0
table="| Target | Seconds | Runs | Runs a second | Coverage at the start | at the end | Corpus | Findings |"$'\n'
table+="|---|---|---|---|---|---|---|---|"$'\n'
for target in $targets; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    inputs=("fuzz/corpus/$target")
    [[ -d fuzz/seeds/$target ]] && inputs+=("fuzz/seeds/$target")
    options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1)
    for dictionary in fuzz/dict/"${target%%_*}".dict; do
        [[ -f $dictionary ]] && options+=("-dict=$dictionary")
    done
    log=fuzz/artifacts/$target.log
    echo "== $target: $seconds s"
    findings=0
    if ! "fuzz/target/$triple/release/$target" "${options[@]}" "-artifact_prefix=fuzz/artifacts/$target/" \
        "${inputs[@]}" >"$log" 2>&1; then
        tail -40 "$log" >&2
        echo "== $target: FINDING, see fuzz/artifacts/$target and $log" >&2
        findings=1
        failed=1
    fi
    seeded=$(sed -n 's/.*INITED *cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    table+="| \`$target\` | $seconds | $(figure "$log" 'stat::number_of_executed_units') |"
    table+=" $(figure "$log" 'stat::average_exec_per_sec') | $seeded | $(figure "$log" cov) |"
    table+=" $(figure "$log" corp) | $findings |"$'\n'
    echo "$table" | tail -2 | head -1
done
echo "$table"
exit $failed
