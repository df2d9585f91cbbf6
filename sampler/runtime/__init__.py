"""What the process runs on: BLAS, threads, compiled loops, files written whole."""
