"""The options of each command: names, types, bounds, defaults and help texts. One file for each command.

Must not import torch, so that `--help` and completion are fast.
"""

from vaectl.options.eval import EvalOptions as EvalOptions
from vaectl.options.option import Option as Option
from vaectl.options.option import cli_name as cli_name
from vaectl.options.option import dump as dump
from vaectl.options.option import names_of as names_of
from vaectl.options.option import options_of as options_of
from vaectl.options.option import parse as parse
from vaectl.options.prepare_eval import PrepareEvalOptions as PrepareEvalOptions
from vaectl.options.reconstruct import ReconstructOptions as ReconstructOptions
