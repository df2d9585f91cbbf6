"""The version of the suite, as it was installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sampler-suite")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+source"
