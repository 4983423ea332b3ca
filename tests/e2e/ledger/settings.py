"""The settings of the demo site, with the ledger."""

from tests.e2e.site_settings import *  # noqa: F403
from tests.e2e.site_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.e2e.ledger"]
