#!/usr/bin/env bash
# Installs route steering as a systemd service, or takes it away again. Never deletes or overwrites a configuration.
#
#   scripts/install-routes.sh [--binary FILE] [--root DIR]    install or update
#   scripts/install-routes.sh --uninstall [--root DIR]        stop and remove the service; settings, keys, state stay
#
# --root DIR installs below DIR and touches neither users nor systemd: for images and tests.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
binary="$here/target/release/switchover-agent"
root=""
action=install
while [ $# -gt 0 ]; do
    case "$1" in
        --uninstall | -u) action=uninstall ;;
        --binary) binary=${2:?--binary needs a file}; shift ;;
        --root) root=${2:?--root needs a folder}; shift ;;
        --help | -h) sed -n '2,8p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 0 ;;
        *) echo "unknown option: $1 (see --help)" >&2; exit 2 ;;
    esac
    shift
done

service=switchover-routes
settings="$root/etc/$service"
unit="$root/etc/systemd/system/$service.service"
rotation="$root/etc/logrotate.d/$service"
program="$root/usr/local/bin/switchover-agent"
real() { [ -z "$root" ]; }
if real && [ "$(id -u)" -ne 0 ]; then
    echo "must be root (or use --root DIR)" >&2
    exit 1
fi

if [ "$action" = uninstall ]; then
    if real; then
        systemctl disable --now "$service.service" 2>/dev/null || true
    fi
    rm -f "$unit" "$rotation"
    if real; then
        systemctl daemon-reload
    fi
    echo "removed the service; routes stay as they are, and so do $settings, /var/lib/$service and /var/log/$service"
    exit 0
fi

[ -x "$binary" ] || { echo "$binary is no program: build it (make build) or name it with --binary" >&2; exit 1; }
if real; then
    id -u "$service" >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin "$service"
fi
# A running program is replaced by a rename, never written over.
install -D -m 0755 "$binary" "$program.new"
mv -f "$program.new" "$program"
install -d -m 0750 "$settings"
if [ ! -e "$settings/routes.env" ]; then
    install -m 0640 "$here/systemd/switchover-routes.env.example" "$settings/routes.env"
    echo "wrote $settings/routes.env: fill it in"
else
    echo "kept $settings/routes.env"
fi
for secret in gcp-key.json cloudflare-token; do
    [ -e "$settings/$secret" ] || echo "missing: $settings/$secret (mode 0600, root; systemd hands it to the service)"
done
install -D -m 0644 "$here/systemd/switchover-routes.service" "$unit"
install -D -m 0644 "$here/systemd/switchover-routes.logrotate" "$rotation"
install -D -m 0644 "$here/docs/routes.md" "$root/usr/local/share/doc/switchover-agent/routes.md"
if real; then
    chgrp -R "$service" "$settings"
    systemctl daemon-reload
    systemctl enable "$service.service"
    echo "enabled; start it with: systemctl restart $service"
fi
