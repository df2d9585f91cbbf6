"""Running a matrix, an engine check or a token file; replaying a verdict."""
