"""ComfyUI: its messages, its graphs, and the connectors that drive it."""
