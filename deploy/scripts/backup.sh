#!/bin/sh
# The database of compose.yaml into a file, by its own container's tools, while everything runs; with --results the
# store's volume too, while the store is stopped for it (results wait on the workers' disks meanwhile).
#
#   sh deploy/scripts/backup.sh [--results] [FOLDER]       FOLDER: ./backups
#
# KEEP (14): how many of each kind stay. docs/BACKUP.md.
set -eu
umask 077
results=
if [ "${1-}" = --results ]; then
    results=yes
    shift
fi
folder=${1:-backups}
keep=${KEEP:-14}
deploy=$(cd -- "$(dirname -- "$0")/.." && pwd)
compose() { (cd -- "$deploy" && docker compose "$@"); } # there, for what deploy/.env says, COMPOSE_FILE included

mkdir -p -- "$folder"
folder=$(cd -- "$folder" && pwd)
stamp=$(date -u +%Y%m%dT%H%M%SZ)
database=$folder/comfy-$stamp.dump
artifacts=$folder/artifacts-$stamp.tar
stopped=
end() {
    trap '' HUP INT TERM
    rm -f -- "$database.part" "$artifacts.part"
    [ -z "$stopped" ] || compose start store
}
trap end EXIT
trap 'exit 129' HUP # a signal by itself would end it without the above
trap 'exit 130' INT
trap 'exit 143' TERM

forget() { # the oldest of those whose names match, which sort by time
    for old in "$@"; do
        [ $# -gt "$keep" ] || break
        rm -f -- "$old"
        echo "deleted $old"
        shift
    done
}

compose exec -T postgres pg_dump --username=comfy --format=custom --no-owner --no-privileges comfy >"$database.part"
compose exec -T postgres pg_restore --list <"$database.part" >/dev/null # it is whole
mv -- "$database.part" "$database"
echo "$database"
forget "$folder"/comfy-*.dump

if [ -n "$results" ]; then
    image=$(compose config --images postgres)
    stopped=yes
    compose stop store
    docker run --rm --network none --volume comfy-api_artifacts:/store:ro "$image" \
        sh -euc "tar -C /store --exclude './replaced_*' -cf - ." >"$artifacts.part"
    mv -- "$artifacts.part" "$artifacts"
    echo "$artifacts"
    forget "$folder"/artifacts-*.tar
fi
