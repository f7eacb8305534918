"""One module per storage provider, with its ``PROVIDER``. A module here is all that a new store takes; what imports the
provider's own library is imported by its ``load`` and ``open`` alone."""
