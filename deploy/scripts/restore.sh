#!/bin/sh
# Puts back what backup.sh made, into the stack of compose.yaml: API and workers are stopped for it and started again.
#
#   sh deploy/scripts/restore.sh [--force] DUMP [ARTIFACTS]
#
# A database with tables, and a store with anything in it, are refused without --force, which renames the one and moves the
# other aside in its volume: nothing is deleted. docs/BACKUP.md.
set -eu
force=
if [ "${1-}" = --force ]; then
    force=yes
    shift
fi
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
stop() { echo "error: $*" >&2; exit 1; }
for file in "$@"; do
    [ -r "$file" ] || stop "$file cannot be read"
done
dump=$1
artifacts=${2-}
stamp=$(date -u +%Y%m%d%H%M%S)
deploy=$(cd -- "$(dirname -- "$0")/.." && pwd)
compose() { (cd -- "$deploy" && docker compose "$@"); } # there, for what deploy/.env says, COMPOSE_FILE included
sql() { compose exec -T postgres psql --username=comfy --no-psqlrc --quiet --tuples-only --no-align \
    --set=ON_ERROR_STOP=1 --dbname="$1" --command="$2"; }
in_store() { docker run --rm --interactive --network none --volume comfy-api_artifacts:/store "$image" sh -euc "$1"; }

[ -z "$artifacts" ] || tar -tf "$artifacts" >/dev/null || stop "$artifacts is damaged"
compose up --detach --wait postgres
compose exec -T postgres pg_restore --list <"$dump" >/dev/null || stop "$dump is damaged"
tables=$(sql comfy "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
if [ "$tables" -gt 0 ] && [ -z "$force" ]; then
    stop "there is a database here already ($tables tables); --force renames it"
fi
there=
if [ -n "$artifacts" ]; then
    image=$(compose config --images postgres)
    compose up --no-start --no-recreate store
    there=$(in_store 'ls -A /store' </dev/null | grep -v '^replaced_' || true)
    [ -z "$there" ] || [ -n "$force" ] || stop "there is something in the store already; --force moves it aside"
fi
compose stop api worker
if [ "$tables" -gt 0 ]; then
    aside=comfy_replaced_$stamp
    sql postgres "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'comfy'" >/dev/null
    sql postgres "ALTER DATABASE comfy RENAME TO $aside"
    sql postgres "CREATE DATABASE comfy"
    echo "what was here is now the database $aside: drop it when all is well"
fi
compose exec -T postgres pg_restore --username=comfy --dbname=comfy --single-transaction --exit-on-error \
    --no-owner --no-privileges <"$dump"
sql comfy ANALYZE
if [ -n "$artifacts" ]; then
    compose stop store
    if [ -n "$there" ]; then
        aside=replaced_$stamp
        in_store "cd /store; mkdir $aside; ls -A | grep -v '^replaced_' |
            while IFS= read -r one; do mv -- \"\$one\" $aside/; done" </dev/null
        echo "what was in the store is now in $aside of its volume: delete it when all is well"
    fi
    in_store 'tar -C /store -xf -' <"$artifacts"
fi
compose up --detach
echo "restored; look at: docker compose ps, comfy-api doctor"
