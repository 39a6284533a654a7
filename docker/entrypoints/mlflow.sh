#!/bin/sh
# The MLflow server: the record in PostgreSQL, artifacts handed through, users with passwords.
set -eu
. "$(dirname "$0")/settings.sh"
need POSTGRES_PASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY ARTIFACTS
port=${MLFLOW_PORT:-5000}

umask 077
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
trap 'rm -f "$MLFLOW_AUTH_CONFIG_PATH"' EXIT
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
default_permission = READ
database_uri = $(database_url mlflow_users | sed 's/%/%%/g')
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 60
INI
MLFLOW_BACKEND_STORE_URI=$(database_url mlflow)
export MLFLOW_AUTH_CONFIG_PATH MLFLOW_BACKEND_STORE_URI
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
python -W ignore "$(dirname "$0")/schema.py"
# Not `exec`: the file with a password is removed at the end. A signal is handed on.
mlflow server --app-name basic-auth --host "$BIND" --port "$port" --workers "${MLFLOW_WORKERS:-2}" \
  --allowed-hosts "${MLFLOW_ALLOWED_HOSTS:-$BIND:$port,127.0.0.1:$port,localhost:$port}" \
  --enable-workspaces --serve-artifacts --artifacts-destination "$ARTIFACTS" &
trap 'kill -TERM $!' TERM INT
wait $! || wait $!
