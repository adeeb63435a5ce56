from .answer_cache import AnswerCache as AnswerCache
from .coroutines import Outcome as Outcome
from .coroutines import first_questions as first_questions
from .coroutines import run_coroutines as run_coroutines
from .coroutines import side_by_side as side_by_side
from .fitting import Inquiry as Inquiry
from .fitting import cut_source as cut_source
from .fitting import inquire as inquire
