"""What a model looks at: maps, patches, what to ask about them, object maps, and answers from object masks.

No training, and no verdict on a model. That the maps are those of captum and of the corrector is tested in
``test_same_maps``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.explain.explainer import Explainer
    from crayon_sdk.explain.groups import DiscoveredGroups, find_groups
    from crayon_sdk.explain.maps import SaliencyMaps
    from crayon_sdk.explain.masks import simulate_answers, simulate_neuron_answers, simulate_spot_answers
    from crayon_sdk.explain.objects import ObjectMaps, find_objects
    from crayon_sdk.explain.patches import NeuronPatches

__all__ = [
    "DiscoveredGroups",
    "Explainer",
    "NeuronPatches",
    "ObjectMaps",
    "SaliencyMaps",
    "find_groups",
    "find_objects",
    "simulate_answers",
    "simulate_neuron_answers",
    "simulate_spot_answers",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "DiscoveredGroups": "groups",
        "Explainer": "explainer",
        "NeuronPatches": "patches",
        "ObjectMaps": "objects",
        "SaliencyMaps": "maps",
        "find_groups": "groups",
        "find_objects": "objects",
        "simulate_answers": "masks",
        "simulate_neuron_answers": "masks",
        "simulate_spot_answers": "masks",
    },
)
