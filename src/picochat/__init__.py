"""picochat: a bounded slice of public text becomes a small chat model, with evidence that a
stranger can check.
"""
