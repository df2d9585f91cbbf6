"""The installed version of the suite."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sampler-suite")
except PackageNotFoundError:  # a source tree without installation
    __version__ = "0+source"
