"""The version of the package, for modules that must not import all of it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("emix")
except PackageNotFoundError:  # used from a folder of sources
    __version__ = "unknown"
