"""What every room needs and no user calls: files and locks, text, progress, devices, the Hub's two directions.

Nothing of images, models or answers; no torch at import time but where a module is about devices.
"""
