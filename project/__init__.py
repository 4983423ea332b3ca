"""The demo site of livefeed: a live blog."""
