from .ballots import LABEL_TOKEN_MASS as LABEL_TOKEN_MASS
from .ballots import LOW_MASS as LOW_MASS
from .ballots import MIN_MASS as MIN_MASS
from .ballots import average_ballots as average_ballots
from .ballots import check_mass as check_mass
from .jsonl import read_rows as read_rows
from .jsonl import write_rows as write_rows
from .preferences import Role as Role
