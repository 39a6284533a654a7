#!/bin/sh
# PostgreSQL where no container runs it: made on the first start, then served until it is told to end.
#   database.sh FOLDER
set -eu
. "$(dirname "$0")/settings.sh"
need POSTGRES_PASSWORD
databases=$(dirname "$0")/databases.sql
folder=$1
postgres=$(command -v postgres || ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | tail -n 1)
[ -n "$postgres" ] || {
  echo "error: PostgreSQL must be installed, but no postgres is found. Ask for: apt-get install postgresql" >&2
  exit 1
}
programs=$(dirname "$(readlink -f "$postgres")")

# PostgreSQL refuses to run as root.
user=
[ "$(id -u)" != 0 ] || user="setpriv --reuid=postgres --regid=postgres --clear-groups"

if [ ! -s "$folder/PG_VERSION" ]; then
  # It is made beside its place, which it takes when it is whole.
  new=$folder.new
  password=$folder.password
  trap 'rm -rf "$password" "$new"' EXIT
  trap 'exit 1' INT TERM
  rm -rf "$new"
  mkdir -p "$new"
  (umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" >"$password")
  [ -z "$user" ] || chown postgres:postgres "$new" "$password"
  $user "$programs/initdb" --pgdata "$new" --username hemaml --auth scram-sha-256 \
    --pwfile "$password" --encoding UTF8 --locale C >/dev/null
  rm -f "$password"
  # Who can reach it is decided by the address that it listens on; all give the password.
  echo "host all all all scram-sha-256" >>"$new/pg_hba.conf"
  # Alone and without a port: nobody meets a database that is half made.
  $user "$programs/postgres" --single -D "$new" -j postgres <"$databases" >/dev/null
  if [ -e "$folder" ] && ! rmdir "$folder"; then
    echo "error: PostgreSQL's folder must be one of its own or empty, but $folder is neither. Move it away." >&2
    exit 1
  fi
  mv "$new" "$folder"
fi
cd "$folder"
exec $user "$programs/postgres" -D "$folder" -p "${POSTGRES_PORT:-5432}" -h "$BIND" -k ''
