"""Where training starts: the setting ``init``."""

from __future__ import annotations

from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.models.adapters import PREFIX
from crayon_sdk.models.load import load_model
from crayon_sdk.models.split import SplitModel

__all__ = ["published_weights", "start_of"]


def published_weights(model: SplitModel) -> str:
    """Name the published weights of the architecture of a model, those that it says it comes from where there are some.

    Args:
        model: Of timm or torchvision.

    Raises:
        SettingsError: There are none.

    Example:
        >>> published_weights(load_model("test_resnet", pretrained=False))
        'test_resnet.r160_in1k'
    """
    import timm

    name = model.architecture
    if name.startswith(PREFIX):
        return name
    config = getattr(model.model, "pretrained_cfg", None) or {}
    for tag in (config.get("tag"), getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "tag", None)):
        if timm.is_model_pretrained(name) and tag and f"{name}.{tag}" in timm.list_pretrained(f"{name}.*"):
            return f"{name}.{tag}"
    raise SettingsError(
        f"expected a model with published weights with init='pretrained', got {name}, which timm has none of; name "
        "others of the same architecture, such as init='local-dir:FOLDER', or leave init out to start from this model"
    )


def start_of(model: SplitModel, init: str) -> SplitModel | None:
    """Load the weights that training starts from.

    Args:
        model: The model that is given.
        init: The setting, with "pretrained" resolved.

    Returns:
        ``None`` for those of the model itself.

    Raises:
        ModelLoadError: They cannot be had.
        MismatchError: They are of another architecture, or of other classes.
        SettingsError: Neurons of the model are cut, which they would come back from.
    """
    if init == "original":
        return None
    if not model.neuron_mask.all():
        raise SettingsError(f"expected init='original' for a model with pruned neurons, got {init!r}")
    start = load_model(init, num_classes=model.num_classes)
    ours, theirs = model.model.state_dict(), start.model.state_dict()
    different = sorted(ours.keys() ^ theirs.keys()) or [key for key in ours if ours[key].shape != theirs[key].shape]
    if different:
        raise MismatchError(
            f"expected weights of {model.architecture} at init={init!r}, got {start.architecture} "
            f"({len(different)} tensors differ, {different[0]!r} among them)"
        )
    if model.class_names and start.class_names and model.class_names != start.class_names:
        raise MismatchError(
            f"expected a model of the classes {', '.join(model.class_names)} at init={init!r}, got one of "
            f"{', '.join(start.class_names)}"
        )
    return start
