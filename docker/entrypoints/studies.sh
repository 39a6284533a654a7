#!/bin/sh
# optuna-dashboard on the studies. It asks nobody for a password: keep it on the loopback address.
set -eu
. "$(dirname "$0")/settings.sh"
need POSTGRES_PASSWORD STUDIES_PASSWORD
OWNER=$(database_url studies)
STUDIES=$(database_url studies studies STUDIES_PASSWORD)
export OWNER STUDIES BIND
# Not by its command line, where everybody would see the password.
exec python -W ignore "$(dirname "$0")/studies.py"
