"""One Django site that serves streams in several ways; BENCH_KIND says which: livefeed, or a peer in its place."""
