"""The queue's protocol as a model: its transitions as functions of values, small fleets in which everything that can
happen does, and what must hold. The tests explore it exhaustively and compare it with real servers."""
