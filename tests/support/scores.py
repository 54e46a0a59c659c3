"""Rows of evaluations, made up."""

import math

import numpy as np

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.evaluation.table import COLUMNS, ScoreTable

VOCABULARY = CTSPINE1K.vocabulary


def row(case_id, label, *, reference=True, prediction=True, **values):
    found = dict.fromkeys(COLUMNS, math.nan)
    found |= {"case_id": case_id, "label": label, "vertebra": VOCABULARY.name(label), "problem": ""}
    found |= {"reference": reference, "prediction": prediction, "truncated": False}
    found |= {"identified": False, "identified_msr": False, "shift": 0 if prediction else None}
    both = reference and prediction
    found |= {"dice": 0.0, "iou": 0.0, "nsd_3mm": 0.0} if not both else {}
    return {**found, **values}


def random_table(seed=0, cases=7, labels=(5, 6, 19, 20, 25)):
    """Vertebrae with values, missed ones, and ones that are only predicted."""
    random, rows = np.random.default_rng(seed), []
    for number in range(cases):
        for label in labels:
            what = random.choice(["both", "both", "both", "missed", "surplus", "none"])
            if what == "none":
                continue
            reference, prediction = what != "surplus", what != "missed"
            values = {}
            if what == "both":
                dice, mm = random.uniform(0.2, 1), random.uniform(0, 30)
                values = {
                    "dice": dice,
                    "iou": dice / 2,
                    "hd_mm": 2 * mm,
                    "centroid_mm": mm,
                    "nsd_3mm": dice / 3,
                }
                values |= {"identified": bool(mm <= 20), "identified_msr": bool(mm < 10)}
            rows.append(row(f"c{number}", label, reference=reference, prediction=prediction, **values))
    return ScoreTable(tuple(rows))


def evaluate_there(raw, predictions, out, ids):
    """An evaluation in a process of its own, to be killed."""
    ctspine1k.open_collection(data_dir=raw).select(ids).evaluate(predictions, out, label_scheme="region")
