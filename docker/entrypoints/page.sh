#!/bin/sh
# The champions behind an API and a page; whoever asks must send the token. It asks MLflow as the
# user `page`, who may only read.
#   page.sh [account]    `account` makes that user, which takes the administrator, and ends
set -eu
. "$(dirname "$0")/settings.sh"
need MLFLOW_TRACKING_URI HEMAML_PAGE_PASSWORD
if [ "${1:-}" = account ]; then
  need MLFLOW_AUTH_ADMIN_PASSWORD
  export MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD="$MLFLOW_AUTH_ADMIN_PASSWORD"
  exec python -W ignore "$(dirname "$0")/account.py"
fi
need HEMAML_SERVE_TOKEN
export MLFLOW_TRACKING_USERNAME=page MLFLOW_TRACKING_PASSWORD="$HEMAML_PAGE_PASSWORD"
exec hemaml serve --host "$BIND" --port "${PAGE_PORT:-8000}"
