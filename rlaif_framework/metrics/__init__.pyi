from .correction import CorrectedWinRate as CorrectedWinRate
from .correction import correct_win_rate as correct_win_rate
from .estimates import Estimate as Estimate
from .power import detectable_difference as detectable_difference
from .power import required_labels as required_labels
from .power import required_pairs as required_pairs
