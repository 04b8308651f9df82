#!/bin/sh
# Makes the passwords and keys of compose.yaml in deploy/secrets, each once: what is there stays.
#
# Compose mounts the files as they are, owner and mode included, and the containers' users are others than yours:
# so the files can be read by all, and the folder, which the containers do not see, by you alone.
set -eu
umask 077
folder=${1:-$(dirname -- "$0")/secrets}
mkdir -p -- "$folder"
chmod 700 -- "$folder"

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

put() { # name, content
    [ -e "$folder/$1" ] && return
    printf '%s\n' "$2" >"$folder/$1.new"
    chmod 444 "$folder/$1.new"
    mv -- "$folder/$1.new" "$folder/$1"
    echo "made $1"
}

value() { cat -- "$folder/$1"; }

put postgres_password "$(random 24)"
put database_url "postgresql://comfy:$(value postgres_password)@postgres/comfy"
put valkey_password "$(random 24)"
put valkey_conf "requirepass $(value valkey_password)"
put redis_url "redis://:$(value valkey_password)@valkey:6379/0"
put s3_access_key "GK$(random 12)"
put s3_secret_key "$(random 32)"
put store.env "GARAGE_DEFAULT_ACCESS_KEY=$(value s3_access_key)
GARAGE_DEFAULT_SECRET_KEY=$(value s3_secret_key)
GARAGE_RPC_SECRET=$(random 32)"
put secret_key "$(random 32)"
put grafana_password "$(random 16)"
