#!/bin/sh
# A node of the Ray cluster, which asks for a token.
#   ray.sh head | worker HEAD:PORT
set -eu
. "$(dirname "$0")/settings.sh"
need RAY_AUTH_TOKEN
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0  # what it would wait for is Ray Serve
# Where it is 0, Ray's servers listen on the loopback address, and no other node can join; else they
# listen on all addresses, and ask for the token.
RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1
[ "$BIND" != 127.0.0.1 ] || RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER
case ${1:-} in
  head) set -- --head --port="${RAY_PORT:-6379}" --include-dashboard=false ;;
  worker) set -- --address="${2:?which head: HEAD:PORT}" ;;
  *) echo "error: a node is head or worker, but got '${1:-}'." >&2; exit 1 ;;
esac
[ "$BIND" = 0.0.0.0 ] || set -- "$@" --node-ip-address="$BIND"
exec ray start "$@" --disable-usage-stats --block
