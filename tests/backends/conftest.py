"""On SQLite the suites are run on the database servers; on a server its own tests of transactions that overlap are."""

import os

collect_ignore = (
    ["test_servers.py"] if os.environ.get("LIVEFEED_TEST_DATABASE") else ["test_overlapping.py", "test_relaying.py"]
)
