"""What is measured, one question a file. Each has a ``run(bench)`` that returns a :class:`~benchmarks.bench.Result`."""
