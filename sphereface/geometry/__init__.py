"""What the margins do, seen: target logits over the angle, decision regions, learned features; and
how to draw them.
"""
