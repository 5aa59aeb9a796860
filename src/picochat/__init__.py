"""picochat makes a small chat model from a bounded slice of public text, with its evidence.

The evidence is written so that somebody else can check it.
"""
