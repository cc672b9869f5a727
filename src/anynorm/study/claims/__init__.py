"""The claims of a study: each has a question, its definition, and the answer from the runs."""

from __future__ import annotations

from anynorm.study.claims.affine import QUESTIONS as AFFINE
from anynorm.study.claims.control import QUESTIONS as CONTROL
from anynorm.study.claims.convergence import QUESTIONS as CONVERGENCE
from anynorm.study.claims.generalization import QUESTIONS as GENERALIZATION
from anynorm.study.claims.importance import QUESTIONS as IMPORTANCE
from anynorm.study.claims.layers import QUESTIONS as LAYERS
from anynorm.study.claims.outcome import QUESTIONS as OUTCOME
from anynorm.study.claims.question import Answer, Question, ask
from anynorm.study.claims.smoothness import QUESTIONS as SMOOTHNESS
from anynorm.study.claims.sweeps import QUESTIONS as SWEEPS
from anynorm.study.claims.tradeoffs import QUESTIONS as TRADEOFFS
from anynorm.study.claims.variants import QUESTIONS as VARIANTS

__all__ = ["QUESTIONS", "Answer", "Question", "ask"]

QUESTIONS: tuple[Question, ...] = (
    *OUTCOME,
    *CONVERGENCE,
    *CONTROL,
    *SWEEPS,
    *SMOOTHNESS,
    *LAYERS,
    *AFFINE,
    *IMPORTANCE,
    *GENERALIZATION,
    *VARIANTS,
    *TRADEOFFS,
)
