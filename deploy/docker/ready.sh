#!/usr/bin/env bash
# Succeeds if the service whose HTTP port on this host is the first argument can serve. Needs bash alone.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET /health/ready HTTP/1.0\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
