"""An app for the demo site: a ledger that shows each user something else."""
