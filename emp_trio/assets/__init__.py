"""Save a job's output: media type, name, upload, and the wait until the CDN serves it.

Settings come from the environment: :mod:`~emp_trio.assets.config`, :mod:`~emp_trio.assets.accounts`.
A file passes these modules in order: :mod:`~emp_trio.assets.destination` (store and container),
:mod:`~emp_trio.assets.content` (its bytes), :mod:`~emp_trio.assets.media` (its type),
:mod:`~emp_trio.assets.naming` (its name), :mod:`~emp_trio.assets.stores` (upload and verification),
:mod:`~emp_trio.assets.cdn` (its public address). :mod:`~emp_trio.assets.storage` is the way through them.
:mod:`~emp_trio.assets.spool` keeps files whose upload failed for the next attempt, and
:mod:`~emp_trio.assets.inline` puts
a small file into the result itself.
"""
