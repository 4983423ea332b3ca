"""Sends one model to the database "other", and keeps everything else out of it."""

from typing import Any


class OtherRouter:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "other" if model.__name__ == "Elsewhere" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool:
        return (db == "other") == (model_name == "elsewhere")
