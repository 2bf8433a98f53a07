"""What leaves a workspace: a correction with its evaluations, to the Hub."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crayon_sdk.answering import Answering
from crayon_sdk.checkpoint import Correction
from crayon_sdk.evaluation import Evaluation
from crayon_sdk.naming import ORIGINAL
from crayon_sdk.publishing import Published

__all__ = ["Shipping"]


class Shipping(Answering):
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

        Raises:
            StaleError: There is no such correction.
            HubError: As [`Correction.push_to_hub`][crayon_sdk.checkpoint.Correction.push_to_hub].
        """
        return self._with_evaluations(name).push_to_hub(
            repo_id,
            private=private,
            create_pr=create_pr,
            revision=revision,
            commit_message=commit_message,
            dry_run=dry_run,
        )

    def _with_evaluations(self, name: str) -> Correction:
        """A correction with those evaluations on the test pictures that are up to date."""
        found = self.correction(name)
        known: dict[str, Any] = {}
        for field, model in (("before", ORIGINAL), ("after", name)):
            path = f"evaluations/test/{model}.json"
            if path in self.manifest.files and "test" in self.manifest.splits:
                inputs = self._evaluation_inputs(model, "test")
                if self._ledger.status(path, inputs, "").state == "fresh":
                    known[field] = Evaluation.load(self.folder / path)
        return replace(found, **known)
