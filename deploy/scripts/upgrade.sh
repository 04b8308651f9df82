#!/bin/sh
# A newer release on a machine whose units are those of deploy/systemd: backs up, installs beside the old one, brings the
# schema up to date, restarts unit after unit, and looks whether each is well. docs/DEPLOYMENT.md, "Upgrades".
#
#   sudo sh deploy/scripts/upgrade.sh v0.2.0
#
# SOURCE: the repository (that of this file). ROOT (/opt/comfy-api-service): a link to the release that runs; releases are
# folders beside it. BACKUPS (/var/lib/comfy-api-backups). URL (http://127.0.0.1:8000). SETTINGS: the units' file. DATA_DIR:
# that of the unit. SETTLE (15): seconds for which a unit must live on. WITHIN (90): until it is ready.
set -eu
[ $# -eq 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
release=$1
root=${ROOT:-/opt/comfy-api-service}
source=${SOURCE:-$(cd -- "$(dirname -- "$0")/../.." && pwd)}
backups=${BACKUPS:-/var/lib/comfy-api-backups}
url=${URL:-http://127.0.0.1:8000}
settings=${SETTINGS:-/etc/comfy-api/comfy-api.env}
within=${WITHIN:-90}
settle=${SETTLE:-15}

stop() { echo "error: $*" >&2; exit 1; }
step() { echo "== $*"; }
ready() { curl --fail --silent --show-error --max-time 5 --output /dev/null "$url/health/ready" 2>/dev/null; }
until_ready() {
    left=$within
    until ready; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}
# A unit counts as active from the moment that its program was begun: it must also live on.
restarts() { systemctl show --property=NRestarts --value "$1"; }
lives_on() {
    before=$(restarts "$1")
    left=$settle
    while [ "$left" -gt 0 ]; do
        left=$((left - 1))
        sleep 1
        [ "$(restarts "$1")" = "$before" ] || return 1
    done
    [ "$(restarts "$1")" = "$before" ] && systemctl is-active --quiet "$1"
}

old=$(readlink -- "$root") || stop "$root is no link to a release: see docs/DEPLOYMENT.md"
new=$(dirname -- "$root")/comfy-api-service-$release
[ "$old" != "$new" ] || stop "$release is what runs"
ready || stop "the service is not ready now: mend it first (comfy-api doctor)"
units=$(systemctl list-units --plain --no-legend --state=active 'comfy-api*.service' | cut -d' ' -f1)
[ -n "$units" ] || stop "no unit of the service runs"

# Commands run as systemd runs the units, which reads their file itself: a shell would take `&` and `$` in it for its own.
case $units in
*comfy-api.service*) data=${DATA_DIR:-/var/lib/comfy-api/data} ;;
*comfy-api-api.service*) data=${DATA_DIR:-/var/lib/comfy-api/api} ;;
*) data=${DATA_DIR:-/var/lib/comfy-api/worker-$(echo "$units" | sed -n 's/.*worker@\(.*\)\.service$/\1/p' | head -n 1)} ;;
esac
run="systemd-run --quiet --wait --pipe --collect --uid=comfy-api --gid=comfy-api --working-directory=/var/lib/comfy-api \
--property=StateDirectory=comfy-api --property=StateDirectory=comfy-api-backups --property=StateDirectoryMode=0700 \
--property=UMask=0077 --property=LimitNOFILE=65536 --property=EnvironmentFile=$settings --setenv=DATA_DIR=$data"
service() {
    program=$1/.venv/bin/comfy-api
    shift
    # shellcheck disable=SC2086
    $run "$program" "$@"
}

step "backup"
backup=$(service "$old" backup "$backups")
service "$old" restore --check "$backup"

step "install $release in $new, beside $old"
if [ ! -d "$new" ]; then
    rm -rf -- "$new.new"
    git clone --quiet --depth 1 --branch "$release" -- "$source" "$new.new"
    mv -- "$new.new" "$new"
fi
make --silent --directory "$new" install
# ComfyUI servers that are away now are so for the release before too.
service "$new" doctor --no-backends || stop "the new release finds faults; nothing was changed (rm -r $new)"

back() {
    trap - EXIT
    cat >&2 <<END
error: the upgrade did not come to its end. To go back to the release before:

    ln -sfn $old $root.new && mv -T $root.new $root
    systemctl stop $(echo "$units" | tr '\n' ' ')
    run="$run"
    \$run $root/.venv/bin/comfy-api migrate || \$run $root/.venv/bin/comfy-api restore --force $backup
    systemctl start $(echo "$units" | tr '\n' ' ')

The last but one restores the backup only if the schema has become too new for the release before; a restore loses what
was submitted since.
END
    exit 1
}
trap back EXIT

step "schema"
service "$new" migrate

step "restart, workers first"
ln -sfn -- "$new" "$root.new"
mv -T -- "$root.new" "$root"
for unit in $(echo "$units" | grep worker || true) $(echo "$units" | grep -v -e worker -e backup || true); do
    systemctl restart "$unit"
    until_ready || { echo "after the restart of $unit the service is not ready" >&2; exit 1; }
    lives_on "$unit" || { echo "$unit does not go on running: journalctl -u $unit" >&2; exit 1; }
    echo "$unit is well"
done
trap - EXIT
echo "upgraded to $release; the backup of before is $backup, the release before stays in $old"
