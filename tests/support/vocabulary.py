"""Labels of another data set than ours."""

from ctspine1k.catalog.vocabulary import Vertebra, Vocabulary

#: Fewer labels than ours, one of which is greater than ours.
FEW = Vocabulary(
    (
        Vertebra(1, "C1", "cervical", 1, 50, 0),
        Vertebra(2, "T1", "thoracic", 8, 43, 0),
        Vertebra(28, "T13", "thoracic", 28, None, 0),
    ),
    ("own", "region", "binary", "verse"),
)
