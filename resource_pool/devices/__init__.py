"""How a model gets to a place, and what it costs there: one module per kind of place."""
