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

# The address of a database; special characters of the password are escaped.
database_url() {
  python -c '
import os, sys
from urllib.parse import quote
password, host = quote(os.environ["POSTGRES_PASSWORD"], safe=""), os.environ.get("POSTGRES_HOST", "127.0.0.1")
port = os.environ.get("POSTGRES_PORT", "5432")
print(f"postgresql+psycopg://hemaml:{password}@{host}:{port}/{sys.argv[1]}")' "$1"
}

BIND=${HEMAML_BIND:-127.0.0.1}
