#!/bin/sh
# Puts back what backup.sh made, into the stack of compose.yaml: API and workers are stopped for it and started again.
#
#   sh deploy/scripts/restore.sh [--force] DUMP [ARTIFACTS]
#
# A database with tables is refused without --force, which renames it: nothing is deleted. docs/BACKUP.md.
set -eu
force=
if [ "${1-}" = --force ]; then
    force=yes
    shift
fi
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dump=$1
artifacts=${2-}
for file in "$dump" ${artifacts:+"$artifacts"}; do
    [ -r "$file" ] || { echo "error: $file cannot be read" >&2; exit 1; }
done
compose() { docker compose --file "$(dirname -- "$0")/../compose.yaml" "$@"; }
sql() { compose exec -T postgres psql --username=comfy --no-psqlrc --quiet --tuples-only --no-align \
    --set=ON_ERROR_STOP=1 --dbname="$1" --command="$2"; }

compose up --detach --wait postgres
compose exec -T postgres pg_restore --list <"$dump" >/dev/null || { echo "error: $dump is damaged" >&2; exit 1; }
tables=$(sql comfy "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
if [ "$tables" -gt 0 ] && [ -z "$force" ]; then
    echo "error: there is a database here already ($tables tables); --force renames it" >&2
    exit 1
fi
compose stop api worker
if [ "$tables" -gt 0 ]; then
    aside=comfy_replaced_$(date -u +%Y%m%d%H%M%S)
    sql postgres "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'comfy'" >/dev/null
    sql postgres "ALTER DATABASE comfy RENAME TO $aside"
    sql postgres "CREATE DATABASE comfy"
    echo "what was here is now the database $aside: drop it when all is well"
fi
compose exec -T postgres pg_restore --username=comfy --dbname=comfy --single-transaction --exit-on-error \
    --no-owner --no-privileges <"$dump"
sql comfy ANALYZE
if [ -n "$artifacts" ]; then
    image=$(compose config --images postgres)
    compose stop store
    docker run --rm --interactive --network none --volume comfy-api_artifacts:/to "$image" tar -C /to -xf - <"$artifacts"
fi
compose up --detach
echo "restored; look at: docker compose ps, comfy-api doctor"
