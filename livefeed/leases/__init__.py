"""Live connections as the whole cluster sees them: who holds one, on which topics, until when."""

from .base import CHORE, Claim, Connection, LeaseRequest, Leases, chore, get_leases

__all__ = ["CHORE", "Claim", "Connection", "LeaseRequest", "Leases", "chore", "get_leases"]
