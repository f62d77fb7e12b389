"""MEASURE: the dimensional structure of features, as numbers, tables and figures."""

from keras_dskd.structure.pair_check import check_pairs
from keras_dskd.structure.report import (
    FeatureStructure,
    StructureReport,
    structure_report,
)

__all__ = ["FeatureStructure", "StructureReport", "check_pairs", "structure_report"]
