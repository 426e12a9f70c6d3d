#!/usr/bin/env bash
# Line coverage of the decisions (src/rules, src/plan) by the tests that run them: the library's own and the pair on
# virtual time. Fails below the bound given (default 95). Needs Debian's llvm of the compiler's version; installs it as root.
set -euo pipefail
cd "$(dirname "$0")/.."
bound=${1:-95}
version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if ! command -v "llvm-cov-$version" >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "llvm-$version" >/dev/null
fi
out=target/coverage
mkdir -p "$out"
rm -f "$out"/*.profraw
cat >"$out/rustc" <<'WRAPPER'
#!/bin/sh
compiler=$1
shift
exec "$compiler" "$@" -C instrument-coverage
WRAPPER
chmod +x "$out/rustc"
# Only this crate is instrumented, so that the libraries are built once for everything.
export RUSTC_WORKSPACE_WRAPPER=$PWD/$out/rustc LLVM_PROFILE_FILE=$PWD/$out/%p-%m.profraw CARGO_INCREMENTAL=0
tests=(--lib --test engine_pair --test engine_cases --test anycast_config --test anycast_task --test geo)
cargo test -q --lib -- rules:: plan:: model:: verify:: >/dev/null
cargo test -q "${tests[@]:1}" >/dev/null
binaries=$(cargo test --no-run --message-format=json "${tests[@]}" 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
"llvm-profdata-$version" merge -sparse "$out"/*.profraw -o "$out/all.profdata"
objects=()
for binary in $binaries; do objects+=(-object "$binary"); done
"llvm-cov-$version" export -summary-only -instr-profile "$out/all.profdata" "${objects[@]}" >"$out/summary.json"
python3 - "$out/summary.json" "$bound" <<'REPORT'
import json, sys
files = json.load(open(sys.argv[1]))["data"][0]["files"]
total = covered = 0
for entry in sorted(files, key=lambda entry: entry["filename"]):
    name = entry["filename"]
    if not any(part in name for part in ("/src/rules/", "/src/plan/")) or name.endswith("_tests.rs"):
        continue
    lines = entry["summary"]["lines"]
    total, covered = total + lines["count"], covered + lines["covered"]
    print(f'{lines["percent"]:6.1f} %  {name.split("/src/")[1]}')
percent = 100 * covered / total
print(f"{percent:6.1f} %  of {total} lines of rules/ and plan/")
sys.exit(percent < float(sys.argv[2]))
REPORT
