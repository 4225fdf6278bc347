"""The verbs: they return or yield, they never print."""
