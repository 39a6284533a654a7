#!/bin/sh
# The champions behind an API and a page; whoever asks must send the token.
set -eu
. "$(dirname "$0")/settings.sh"
need MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD HEMAML_SERVE_TOKEN
exec hemaml serve --host "$BIND" --port "${PAGE_PORT:-8000}"
