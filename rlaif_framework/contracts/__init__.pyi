from .stage import read_metrics as read_metrics
from .stage import resume_step as resume_step
from .validation import read_measures as read_measures
from .validation import score_responses as score_responses
