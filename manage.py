#!/usr/bin/env python
"""Run the demo site's commands: `python manage.py demo --serve`."""

import os
import sys


def main() -> None:
    """Hand the command line to Django, with the demo's settings."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
