"""The annotation app: a page on which people answer yes or no, and a store that loses no answer.

- [`tasks`][crayon_sdk.annotate.tasks]: what is asked, and the records an answer becomes.
- [`desk`][crayon_sdk.annotate.desk]: who gets what next.
- [`follower`][crayon_sdk.annotate.follower]: what follows from the answers, worked out while people go on.
- [`store`][crayon_sdk.annotate.store]: answers by click; what was acknowledged is on the disk.
- [`database`][crayon_sdk.annotate.database]: where they lie, in SQLite or PostgreSQL.
- [`drawing`][crayon_sdk.annotate.drawing]: the pictures, as JPEG.
- [`monitoring`][crayon_sdk.annotate.monitoring]: what the owner sees.
- [`access`][crayon_sdk.annotate.access]: who may do what, and the headers of every answer.
- [`server`][crayon_sdk.annotate.server]: HTTP (FastAPI).
- [`serving`][crayon_sdk.workspace.serving]: all of it over a workspace, until it is stopped.

`access`, `drawing`, `monitoring` and `tasks` are tested in ``test_parts``; the pages in ``test_page``.
"""
