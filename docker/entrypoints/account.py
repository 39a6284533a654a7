"""Makes the account by which the page asks MLflow, or gives it the password that is set now.

It asks as who MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD name, an administrator.
"""

import os
import sys

from hemaml.core.errors import HemamlError
from hemaml.tracking.credentials import Credentials
from hemaml.tracking.users import add_user, authenticated, remove_user, users

uri = os.environ["MLFLOW_TRACKING_URI"]
page, role = Credentials("page", os.environ["HEMAML_PAGE_PASSWORD"]), "reader"
try:
    known = {user.name: user.roles for user in users(uri)}
    if known.get(page.username) != (role,) or not authenticated(uri, page):
        if page.username in known:
            remove_user(uri, page.username)
        add_user(uri, page, role)
except HemamlError as error:
    sys.exit(f"error: {error}")
