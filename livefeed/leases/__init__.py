"""Live connections as the whole cluster sees them: who holds one, on which topics, until when."""

from .base import LeaseRequest, Leases, get_leases

__all__ = ["LeaseRequest", "Leases", "get_leases"]
