"""Classification of malignant lymphoma from images of lymph nodes: CLL, FL or MCL.

The scores are defined at the top of `hemaml.ops.classification_scores`, those of several classes as
means over them. The one that decides is `accuracy`, as in the paper's Table 2: it is defined for
parts that lack a class, too, such as a single case.
"""

from hemaml.tasks._classification import classification_task

task = classification_task("lymphoma", usual_data="malignant_lymphoma", primary="accuracy")
