"""READ: find a layer, capture its output, choose layers."""
