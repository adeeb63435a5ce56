from .own_code import OwnCode as OwnCode
from .own_code import anchor_target as anchor_target
from .own_code import split_target as split_target
