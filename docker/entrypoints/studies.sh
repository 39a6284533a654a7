#!/bin/sh
# optuna-dashboard on the studies. It asks nobody for a password: keep it on the loopback address.
set -eu
. "$(dirname "$0")/settings.sh"
need POSTGRES_PASSWORD
STUDIES=$(database_url studies)
export STUDIES BIND
# Not by its command line, where everybody would see the password.
exec python -W ignore -c '
import os
from optuna.storages import RDBStorage
from optuna_dashboard import run_server
RDBStorage(os.environ["STUDIES"])  # makes the tables, which the dashboard expects
run_server(os.environ["STUDIES"], host=os.environ["BIND"], port=int(os.environ.get("STUDIES_PORT", "8080")))'
