"""MEASURE: how independent and how evenly spread a model's features are.

```
measurement.py   structure_report: features of a model over data -> a report
report.py        StructureReport: the numbers; prints, plots and saves itself
table.py         the report as a table
html.py          the report as one HTML page
figures/         the report, and the history of `fit`, as matplotlib figures
pair_check.py    check_pairs: do the two modalities' samples belong together?
pair_samples.py  the samples that check_pairs compares, and their classes
```
"""

from keras_dskd.structure.measurement import structure_report
from keras_dskd.structure.pair_check import check_pairs
from keras_dskd.structure.report import FeatureStructure, StructureReport

__all__ = ["FeatureStructure", "StructureReport", "check_pairs", "structure_report"]
