"""The Images API, and the connectors of images, which also ask the Responses API for them."""
