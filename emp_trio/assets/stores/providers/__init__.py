"""Storage providers: one package each, with a ``PROVIDER``.

To add a store, add a package. Import the provider's own library only in ``load`` and ``open``.
"""
