from .answer_cache import AnswerCache as AnswerCache
from .coroutines import Outcome as Outcome
from .coroutines import first_questions as first_questions
from .coroutines import run_coroutines as run_coroutines
from .coroutines import run_in_lockstep as run_in_lockstep
from .fitting import PromptQuery as PromptQuery
from .fitting import run_queries as run_queries
from .fitting import truncate_source as truncate_source
