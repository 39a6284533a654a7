"""Classification of white blood cells: neutrophil, lymphocyte, monocyte, eosinophil or basophil.

The scores are defined at the top of `hemaml.ops.classification_scores`, those of several classes as
means over them. The one that decides is `accuracy`, as in Tables 4 to 6 of the SMGNN paper. Types
are unequally common, and a part may lack the rarest: `balanced_accuracy` stands beside it.

A data set of this task may have masks that somebody drew (`Dataset.drawn`). They are an input, for
models that are told to use them, and for segmenters that are trained in a fold.
"""

from hemaml.tasks._classification import classification_task

task = classification_task("wbc_type", usual_data="segmentation_wbc-2-types", primary="accuracy")
