"""The settings of the demo site with those of LIVEFEED_TEST_SETTINGS (a JSON object) laid over them."""

import json
import os

from project.settings import *  # noqa: F403

globals().update(json.loads(os.environ.get("LIVEFEED_TEST_SETTINGS", "{}")))
