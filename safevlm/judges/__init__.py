"""What reads an answer: whether it refuses or complies, whether it calls an image safe, which of four options it names."""

from .by_name import judges_by_name
from .concept_rules import RuleJudge
from .endpoint_judge import EndpointJudge
from .readings import LETTERS, AnswerJudge, Choice, Reading, Safety, listed, marked
from .rules import Judgement, judge, normalise
from .trained import TrainedJudge

__all__ = [
    "LETTERS",
    "AnswerJudge",
    "Choice",
    "EndpointJudge",
    "Judgement",
    "Reading",
    "RuleJudge",
    "Safety",
    "TrainedJudge",
    "judge",
    "judges_by_name",
    "listed",
    "marked",
    "normalise",
]
