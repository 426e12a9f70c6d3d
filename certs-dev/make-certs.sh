#!/bin/sh
# Makes development certificates beside this script, or in the directory given, with the agent's `certs` command.
# AGENT names the binary; without it the one that cargo builds is used. Existing files are never overwritten.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here}
if [ -e "$dir/ca.crt" ]; then
    echo "$dir/ca.crt exists already: nothing was made (remove the files first to make new ones)" >&2
    exit 0
fi
if [ -n "${AGENT:-}" ]; then
    exec "$AGENT" certs "$dir"
fi
exec cargo run --quiet --manifest-path "$here/../Cargo.toml" -- certs "$dir"
