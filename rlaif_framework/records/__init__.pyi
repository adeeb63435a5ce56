from .ballots import average_ballots as average_ballots
from .jsonl import read_rows as read_rows
from .jsonl import write_rows as write_rows
