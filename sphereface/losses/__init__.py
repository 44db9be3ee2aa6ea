"""Angular-margin losses: margins on N target cosines, one fused softmax engine, the classification
head.
"""
