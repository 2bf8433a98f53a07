"""What every room needs and no user calls: files and locks, text, progress, devices, the Hub's two directions.

Nothing of images, models or answers; no torch at import time but where a module is about devices.

`hub` is what both directions share, `fetching` and `publishing` are one each: three modules, for nobody who reads needs
what writes. `showing` stays here and not in `show`: answers have a table too, and know nothing of pictures.
Tested elsewhere: `hub` and `fetching` in ``test_publishing``, ``models/test_hub_loading`` and
``results/test_hub_corrections``; `lazy` in ``test_import``; `methods` in ``results/test_consistency``.
"""
