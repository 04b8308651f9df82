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
compose() { docker compose --file "$(dirname -- "$0")/../compose.yaml" "$@"; }

mkdir -p -- "$folder"
folder=$(cd -- "$folder" && pwd)
stamp=$(date -u +%Y%m%dT%H%M%SZ)
database=$folder/comfy-$stamp.dump
artifacts=$folder/artifacts-$stamp.tar
trap 'rm -f -- "$database.part" "$artifacts.part"' EXIT

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
    compose stop store
    trap 'rm -f -- "$artifacts.part"; compose start store' EXIT
    docker run --rm --network none --volume comfy-api_artifacts:/from:ro "$image" tar -C /from -cf - . >"$artifacts.part"
    mv -- "$artifacts.part" "$artifacts"
    echo "$artifacts"
    forget "$folder"/artifacts-*.tar
fi
