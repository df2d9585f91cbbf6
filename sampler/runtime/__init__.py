"""The runtime of the process: BLAS, threads, compiled loops, atomically written files."""
