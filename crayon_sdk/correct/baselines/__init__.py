"""The methods that the paper compares with, and more of their kind: one short file each, all on one loop.

An objective, its settings, its published settings, and nothing else; losses are in `crayon_sdk.functional`.
"""
