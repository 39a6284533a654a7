# Read by all entry points: what they need, and what follows from it.

# Ends with a sentence where one of the named variables is empty: no secret has a default.
need() {
  for name in "$@"; do
    eval "value=\${$name:-}"
    if [ -z "$value" ]; then
      echo "error: $name must be set, but is empty. Set it in the .env file; see docker/.env.example." >&2
      exit 1
    fi
  done
}

# The address of a database, with special characters of the password escaped.
#   database_url DATABASE [USER PASSWORD_VARIABLE]
database_url() {
  python -c '
import os, sys
from urllib.parse import quote
database, user, password = sys.argv[1:]
host, port = os.environ.get("POSTGRES_HOST", "127.0.0.1"), os.environ.get("POSTGRES_PORT", "5432")
password = quote(os.environ[password], safe="")
print(f"postgresql+psycopg://{user}:{password}@{host}:{port}/{database}")
' "$1" "${2:-hemaml}" "${3:-POSTGRES_PASSWORD}"
}

BIND=${HEMAML_BIND:-127.0.0.1}
