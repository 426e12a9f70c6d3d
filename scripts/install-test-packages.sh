#!/usr/bin/env bash
# Installs the Debian packages of test-packages.txt that are missing. Does nothing when none is, and names what it
# could not install: the tests that need it then skip by name, or fail when CI=true.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

missing=()
while read -r package _; do
    case $package in '' | '#'*) continue ;; esac
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done <"$here/test-packages.txt"

[ ${#missing[@]} -gt 0 ] || exit 0

give_up() {
    echo "SKIPPED: $1; missing packages: ${missing[*]}" >&2
    if [ "${CI:-}" = true ]; then exit 1; fi
    exit 0
}
[ "$(id -u)" = 0 ] || give_up "not root, installing nothing"
command -v apt-get >/dev/null || give_up "no apt-get on this machine"

export DEBIAN_FRONTEND=noninteractive
# Packages that bring a daemon would start it; the tests start their own copies on their own addresses.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
# postgresql-common makes a default cluster on install unless told otherwise.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
lock=(-o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold)
apt-get "${lock[@]}" update -qq || echo "apt-get update failed, trying with the lists at hand" >&2
apt-get "${lock[@]}" install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || give_up "apt-get install failed"
