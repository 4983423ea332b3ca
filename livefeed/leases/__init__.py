"""Live connections as the whole cluster sees them: who holds one, on which topics, until when."""

from .base import CHORE, LeaseRequest, Leases, chore, get_leases

__all__ = ["CHORE", "LeaseRequest", "Leases", "chore", "get_leases"]
