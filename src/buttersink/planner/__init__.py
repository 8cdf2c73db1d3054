"""
Which diffs to send, in which order: values in, a `Plan` out. No I/O here.

`survey` compares what two stores hold; `measuring.Measuring` says which sizes matter; `make_plan`
chooses among them the diffs that together are the least to send.
"""

from buttersink.planner.arranging import make_plan
from buttersink.planner.costs import Weights
from buttersink.planner.plan import Action, Plan, Reason, Step
from buttersink.planner.surveying import Arrival, PlanOptions, Survey, survey

__all__ = [
    "Action",
    "Arrival",
    "Plan",
    "PlanOptions",
    "Reason",
    "Step",
    "Survey",
    "Weights",
    "make_plan",
    "survey",
]
