"""`UnaskedCorrector`: guidance by the model's own maps, without a question asked."""

from __future__ import annotations

from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.method import Method, method
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.results.correction import Correction

__all__ = ["UnaskedCorrector"]


@method
class UnaskedCorrector(AttentionCorrector):
    """Correct without answers: every map is taken for right.

    The honest baseline of [`AttentionCorrector`][crayon_sdk.correct.attention.AttentionCorrector], of which it has all
    settings: where it does as well, nobody had to be asked. It does where most maps are right; where many are wrong, it
    teaches the model what it did wrong before.

    Raises:
        SettingsError: A setting is out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "unasked"
    title = "Attention without answers (unasked)"
    paper = ""
    needs = frozenset({"maps"})

    def fit(  # type: ignore[override]  # there are no answers
        self,
        dataset: ImageDataset,
        maps: SaliencyMaps,
        evaluate_on: ImageDataset | None = None,
        *,
        strict: bool = True,
    ) -> Correction:
        """Correct a copy of the model.

        Args:
            dataset: The training set; all of it counts in the cross entropy.
            maps: Maps of its pictures.
            evaluate_on: Measured after every epoch; not used for training.
            strict: Has no effect: there are no answers that could not fit.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            AnswerError: No map shows anything.
            MismatchError: ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite; its ``model`` holds the weights from before.
        """
        return Method.fit(self, dataset, evaluate_on, maps=maps, strict=strict)
