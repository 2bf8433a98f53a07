"""What leaves a workspace: a correction with its evaluations, to the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crayon_sdk._base.publishing import Published, find_target
from crayon_sdk.results.card import Card
from crayon_sdk.workspace.reporting import Reporting

__all__ = ["Shipping"]


class Shipping(Reporting):
    """A workspace whose corrections can be published."""

    def push(
        self,
        name: str,
        repo_id: str,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        commit_message: str | None = None,
        dry_run: bool = False,
        card_images: Sequence[str] = (),
        card: Card | None = None,
    ) -> Published:
        """Publish a correction on the Hugging Face Hub, with its evaluations on the test pictures.

        Args:
            name: Of the correction.
            repo_id: "me/birds-resnet50".
            private: For a new repository: whether others cannot see it; ``None`` takes the Hub's default.
            create_pr: Open a pull request instead of changing main.
            revision: The branch; made when it is missing. Default main.
            commit_message: Default "Upload model with crayon-sdk".
            dry_run: Check the checkpoint and list the files; the Hub is not asked anything.
            card_images: Test pictures that the card may show, as for
                [`save`][crayon_sdk.workspace.reporting.Reporting.save].
            card: What else the card says; default what the workspace knows.

        Raises:
            StaleError: There is no such correction.
            HubError: As [`Correction.push_to_hub`][crayon_sdk.results.correction.Correction.push_to_hub].
        """
        where: dict[str, Any] = {"private": private, "create_pr": create_pr, "revision": revision}
        where |= {"commit_message": commit_message, "dry_run": dry_run}
        if card_images:  # drawing them is work that a wrong name should not cost
            find_target(repo_id, **where)
        with self._going_out(name, card_images, card) as (found, about):
            return found.push_to_hub(repo_id, **where, card=about)
