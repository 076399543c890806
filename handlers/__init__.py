"""Lambda handlers behind the layer: what becomes of a failure once it is on the queue."""
