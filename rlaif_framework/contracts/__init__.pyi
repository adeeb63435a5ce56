from .stage import read_metrics as read_metrics
from .validation import read_measures as read_measures
from .validation import score_responses as score_responses
