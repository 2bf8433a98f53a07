"""Groups without group labels: which class the surround of an object looks like, and whether that can be trusted.

A model that leans on what is around the object knows that surround, halfway up: from the features outside the object
the label can be foretold, and where that goes wrong the picture stands where its class seldom does. Not part of the
paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.functional.saliency import resize_maps

__all__ = ["balanced_weights", "centred", "fit_softmax", "foretold_classes", "sureness", "surround_features"]


def surround_features(features: Tensor, objects: Tensor) -> Tensor:
    """Average features over what is not object: ``sum (1 - M) f / sum (1 - M)``.

    Args:
        features: (N, D, H, W) floating point.
        objects: (N, h, w) in [0, 1], share of object; brought to the grid of the features.

    Returns:
        (N, D); zeros where the object fills the picture.

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0]]]])
        >>> surround_features(features, torch.tensor([[[1.0, 0.0]]])).item()
        3.0
    """
    outside = 1 - resize_maps(objects, (int(features.shape[2]), int(features.shape[3])))
    total = torch.einsum("ndhw,nhw->nd", features, outside)
    return total / outside.sum(dim=(1, 2)).clamp(min=1e-6)[:, None]


def fit_softmax(features: Tensor, labels: Tensor, weights: Tensor, penalty: float, num_classes: int) -> Tensor:
    """Fit a weighted multinomial logistic regression with a ridge penalty.

    Minimises ``sum w CE(x B + c, y) / sum w + penalty / 2 |B|^2``.

    Args:
        features: (n, D) floating point, best standardised.
        labels: (n,) int64 in [0, K).
        weights: (n,) not negative.
        penalty: Of the coefficients, not of the constants.
        num_classes: K.

    Returns:
        (D + 1, K) coefficients and, last, the constants.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> found = fit_softmax(x, torch.tensor([0, 1]), torch.ones(2), 0.01, 2)
        >>> (x @ found[:-1] + found[-1]).argmax(dim=1).tolist()
        [0, 1]
    """
    shares = weights.to(features.dtype) / weights.sum()
    with torch.enable_grad():
        found = features.new_zeros(features.shape[1] + 1, num_classes).requires_grad_(True)
        optimizer = torch.optim.LBFGS([found], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            each = F.cross_entropy(features @ found[:-1] + found[-1], labels, reduction="none")
            loss = (shares * each).sum() + 0.5 * penalty * found[:-1].square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return found.detach()


def foretold_classes(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    penalty: float = 0.01,
    folds: int = 5,
    seed: int = 0,
    together: Tensor | None = None,
) -> Tensor:
    """Score every class of every sample by a softmax regression that did not see the sample; all classes weigh alike.

    Args:
        features: (N, D) floating point; standardised here.
        labels: (N,) int64 in [0, K).
        num_classes: K.
        penalty: As in `fit_softmax`.
        folds: How many parts the samples are dealt into, class by class.
        seed: Of the dealing.
        together: (N,) int64, samples with one number, of one class, are dealt into one part; default each by itself.

    Returns:
        (N, K) scores, log-odds up to a constant; samples of a class that the other folds lack are scored all the same.

    Example:
        >>> x = torch.cat([torch.full((10, 1), -1.0), torch.full((10, 1), 1.0)])
        >>> y = (x[:, 0] > 0).long()
        >>> bool((foretold_classes(x, y, 2).argmax(dim=1) == y).all())
        True
    """
    features = (features - features.mean(dim=0)) / (features.std(dim=0) + 1e-6)
    unit_of = torch.arange(len(labels)) if together is None else together.cpu().unique(return_inverse=True)[1]
    count = int(unit_of.max()) + 1 if len(unit_of) else 0
    label_of = torch.zeros(count, dtype=torch.int64)
    label_of[unit_of] = labels.cpu()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    order = order[label_of[order].argsort(stable=True)]  # dealt round, every fold gets its share of every class
    dealt = torch.empty_like(order)
    dealt[order] = torch.arange(count) % folds
    fold_of = dealt[unit_of].to(labels.device)
    weights = 1 / torch.bincount(labels, minlength=num_classes).clamp_min(1)[labels]
    scores = features.new_zeros(len(labels), num_classes)
    for fold in range(folds):
        held = fold_of == fold
        if bool(held.any()) and not bool(held.all()):
            found = fit_softmax(features[~held], labels[~held], weights[~held], penalty, num_classes)
            scores[held] = features[held] @ found[:-1] + found[-1]
    return scores


def sureness(scores: Tensor, labels: Tensor) -> float:
    """How sure the scores are where they contradict the label, in units of how sure they are where they agree.

    The ratio of the median margins (best score less the second best). Samples that stand where their class seldom does
    are as sure as the others; mere mistakes lie near the border.

    Args:
        scores: (N, K), K > 1.
        labels: (N,) int64 in [0, K).

    Returns:
        Not negative; NaN where all agree or none does.

    Example:
        >>> scores = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [0.1, 0.0]])
        >>> [round(sureness(scores, torch.tensor(labels)), 2) for labels in ([0, 1, 0, 0], [0, 1, 1, 1])]
        [1.0, 0.05]
    """
    top = scores.topk(2, dim=1)
    margins, agree = top.values[:, 0] - top.values[:, 1], top.indices[:, 0] == labels
    if bool(agree.all()) or not bool(agree.any()):
        return float("nan")
    return float(margins[~agree].median() / margins[agree].median().clamp_min(1e-12))


def centred(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the mean over classes from logits, so that no class is preferred beforehand.

    Args:
        logits: (N, K).
        labels: (N,) int64 in [0, K).

    Returns:
        (N, K) logits less the unweighted mean of the means of every class that occurs.

    Example:
        >>> centred(torch.tensor([[3.0, 0.0], [3.0, 0.0], [5.0, 0.0]]), torch.tensor([0, 0, 1]))[:, 0].tolist()
        [-1.0, -1.0, 1.0]
    """
    return logits - torch.stack([logits[labels == each].mean(dim=0) for each in labels.unique()]).mean(dim=0)


def balanced_weights(labels: Tensor, unusual: Tensor, *, largest: float = 10.0) -> Tensor:
    """Weigh samples so that within every class the unusual ones count in all as much as the usual ones.

    Args:
        labels: (N,) int64.
        unusual: (N,) bool.
        largest: No sample counts more than so many usual ones of its class would without weights.

    Returns:
        (N,) float32 with mean 1 in every class; ones in a class without unusual or without usual samples.

    Example:
        >>> unusual = torch.tensor([True, False, False, False])
        >>> [round(each, 2) for each in balanced_weights(torch.zeros(4).long(), unusual).tolist()]
        [2.0, 0.67, 0.67, 0.67]
    """
    cells = 2 * labels + unusual.long()
    count = int(labels.max()) + 1 if len(labels) else 0
    in_cell = torch.bincount(cells, minlength=2 * count).float()
    in_class = torch.bincount(labels, minlength=count).float()
    both = (in_cell.view(count, 2) > 0).all(dim=1)
    weights = (0.5 * in_class[labels] / in_cell[cells]).clamp(max=largest)
    weights = torch.where(both[labels], weights, 1.0)
    total = torch.zeros(count, device=weights.device).index_add(0, labels, weights)
    return weights * (in_class / total.clamp_min(1e-12))[labels]
