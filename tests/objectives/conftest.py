import pytest

from hemaml.data.smears import Smears, read


@pytest.fixture(scope="session")
def smears():
    """Ten small images, every second one cropped to another shape, with their masks."""
    from dataclasses import replace

    data = read(Smears(count=10, size=48))
    crop = [(slice(0, 48 - 3 * (i % 2)), slice(2 * (i % 2), 48)) for i in range(10)]
    images = tuple(image[c].copy() for image, c in zip(data.images, crop, strict=True))
    masks = tuple(mask[c].copy() for mask, c in zip(data.masks, crop, strict=True))
    return replace(data, images=images, masks=masks)
