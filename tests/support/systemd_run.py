"""A stand-in for `systemd-run`: the command with the unit's environment, its file read as systemd reads it."""

from typing import Final

SYSTEMD_RUN: Final = r"""#!/bin/sh
echo "$@" >>"$MACHINE/systemd-run"
while :; do
    case $1 in
    --property=EnvironmentFile=*)
        while IFS= read -r line; do
            case $line in '' | '#'* | ';'*) ;; *) export "$line" ;; esac
        done <"${1#--property=EnvironmentFile=}" ;;
    --setenv=*) export "${1#--setenv=}" ;;
    --*) ;;
    *) break ;;
    esac
    shift
done
exec "$@"
"""
