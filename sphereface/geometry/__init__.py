"""Show the effect of the margins: target logits, decision regions and learned features."""
