"""What makes two trials the same trial."""

from hemaml.core.identity import trial_key
from hemaml.core.objective import load_objective

SMGNN, UNET = "wbc_segmentation.smgnn", "wbc_segmentation.unet"


def key(**params):
    made = load_objective("wbc_type.light_resnet").params(**params)
    return trial_key(
        objective="wbc_type.light_resnet", params=made, data_digest="", split_digest="", seed=0
    )


def test_trials_differ_by_what_is_in_force_alone():
    segmenters = {SMGNN: {"lr": 0.02}, UNET: {"width": 0.25}}
    others = {**segmenters, UNET: {"width": 0.5}}
    for segmentation, same in (("none", True), (SMGNN, True), (UNET, False)):
        one, other = (key(segmentation=segmentation, segmenters=s) for s in (segmenters, others))
        assert (one == other) is same, segmentation
    default = load_objective(SMGNN).params().epochs
    assert key(segmenters={SMGNN: {"epochs": default}}) == key()
    assert key(segmenters={SMGNN: {"epochs": default + 1}}) != key() != key(lr=0.1)
