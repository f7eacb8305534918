"""Saving what a job made: type detection, naming, storage, and the wait for the CDN in front of it.

The worker's side of it is read from the environment: :mod:`~emp_trio.assets.config`, :mod:`~emp_trio.assets.accounts`.
The modules, in the order in which a file passes them: :mod:`~emp_trio.assets.destination` (where it goes),
:mod:`~emp_trio.assets.content` (its bytes), :mod:`~emp_trio.assets.media` (what it is),
:mod:`~emp_trio.assets.naming` (what it is called), :mod:`~emp_trio.assets.stores` (upload and check),
:mod:`~emp_trio.assets.cdn` (its public address). :mod:`~emp_trio.assets.storage` is the way through them.
:mod:`~emp_trio.assets.spool` holds what could not be uploaded for the next attempt, and
:mod:`~emp_trio.assets.inline` puts
a small file into the result itself.
"""
