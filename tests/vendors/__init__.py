"""The vendors' own clients against our fakes: what these answer must be one to them. ``nox -s clients`` has them."""
