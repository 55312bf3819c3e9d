"""The HttpParser class of http-parser 0.9.0, over httptools."""

version_info = (0, 9, 1)
__version__ = ".".join(map(str, version_info))
