#!/bin/sh
# A newer release on a machine whose units are those of deploy/systemd: backs up, installs beside the old one, brings the
# schema up to date, restarts unit after unit, and looks whether each is well. docs/DEPLOYMENT.md, "Upgrades".
#
#   sudo sh deploy/scripts/upgrade.sh v0.2.0
#
# SOURCE: the repository (that of this file). ROOT (/opt/comfy-api-service): a link to the release that runs; releases are
# folders beside it. BACKUPS (/var/lib/comfy-api-backups). URL (http://127.0.0.1:8000). SETTINGS: the units' file.
set -eu
[ $# -eq 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
release=$1
root=${ROOT:-/opt/comfy-api-service}
source=${SOURCE:-$(cd -- "$(dirname -- "$0")/../.." && pwd)}
backups=${BACKUPS:-/var/lib/comfy-api-backups}
url=${URL:-http://127.0.0.1:8000}
settings=${SETTINGS:-/etc/comfy-api/comfy-api.env}
data=${DATA_DIR:-/var/lib/comfy-api/data}
as=${RUN_AS-runuser -u comfy-api --}
within=${WITHIN:-90}

stop() { echo "error: $*" >&2; exit 1; }
step() { echo "== $*"; }
# As the service's user, with its settings, in its folder.
service() { (
    cd -- "$data"
    set -a
    # shellcheck disable=SC1090
    [ ! -r "$settings" ] || . "$settings"
    set +a
    program=$1
    shift
    # shellcheck disable=SC2086
    DATA_DIR=$data exec $as "$program/.venv/bin/comfy-api" "$@"
); }
ready() { curl --fail --silent --show-error --max-time 5 --output /dev/null "$url/health/ready" 2>/dev/null; }
until_ready() {
    left=$within
    until ready; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}

old=$(readlink -- "$root") || stop "$root is no link to a release: see docs/DEPLOYMENT.md"
new=$(dirname -- "$root")/comfy-api-service-$release
[ "$old" != "$new" ] || stop "$release is what runs"
ready || stop "the service is not ready now: mend it first (comfy-api doctor)"
units=$(systemctl list-units --plain --no-legend --state=active 'comfy-api*.service' | cut -d' ' -f1)
[ -n "$units" ] || stop "no unit of the service runs"

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
service "$new" doctor || stop "the new release finds faults; nothing was changed (rm -r $new)"

back() {
    trap - EXIT
    cat >&2 <<END
error: the upgrade did not come to its end. To go back to the release before:

    ln -sfn $old $root.new && mv -T $root.new $root
    systemctl stop $(echo "$units" | tr '\n' ' ')
    cd $data && set -a && . $settings && set +a
    export DATA_DIR=$data
    $as $root/.venv/bin/comfy-api migrate || $as $root/.venv/bin/comfy-api restore --force $backup
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
    systemctl is-active --quiet "$unit" || { echo "$unit does not run" >&2; exit 1; }
    echo "$unit is well"
done
trap - EXIT
echo "upgraded to $release; the backup of before is $backup, the release before stays in $old"
