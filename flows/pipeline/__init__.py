"""All that knows DVC: the graph, what is recorded, and the bytes behind it."""
